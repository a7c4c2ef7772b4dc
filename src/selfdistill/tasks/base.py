"""The one abstraction of a task: everything that is particular to it, in one class."""

import functools
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torchmetrics import Metric

from ..metrics.evaluation import Scorer, score_images, score_pixels


class TaskKind(ABC):
    """What a task means wherever tasks differ. A subclass in a file of this folder is a task of that name."""

    output: ClassVar[Literal["image", "pixel"]]  # what a score belongs to
    target: ClassVar[str] = "class"  # what a label is: the number of a class, or something of the task's own

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def metric(self, num_classes: int, ignore_index: int) -> Metric:
        """What computes the scores of a student from its logits and the labels."""

    def scorer(self, window: tuple[int, int] | None = None) -> Scorer:
        """How a student is asked for its logits, for pixels in windows of so many (height, width) where given."""
        if self.output == "pixel":
            return functools.partial(score_pixels, window=window)
        if window is not None:
            raise ValueError(f"window={window} has no effect: only segmentation looks at an image window by window")
        return score_images
