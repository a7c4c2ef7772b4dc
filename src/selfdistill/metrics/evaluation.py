"""Scores of a plain student on labeled images."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ..distributed import is_distributed
from ..features.modes import set_mode
from .outcomes import Collector
from .scores import ClassificationScores, MultiLabelScores, SegmentationScores
from .sliding_window import score_map

LOWER_IS_BETTER = ("nll", "ece")

Scorer = Callable[[nn.Module, Tensor, Tensor], Tensor]  # (student, images, target) -> logits as the metric wants them


@runtime_checkable
class Scores(Protocol):
    """The scores that a task's metric computes: a named tuple of numbers, or of one number per class."""

    @property
    def count(self) -> int:
        """Images that were scored."""

    @property
    def main(self) -> float:
        """The score that chooses the best of several students; higher is better."""

    @property
    def finite(self) -> bool:
        """Whether no logit was NaN or infinite."""

    def sentence(self) -> str:
        """The scores for people, on one line."""

    def _asdict(self) -> dict[str, Any]: ...


class OtherScores:
    """The scores of a user's own task, restored from a run's records: numbers by name."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = dict(values)

    @property
    def main(self) -> float:
        return next(iter(self.values.values()))

    @property
    def finite(self) -> bool:
        return not any(isinstance(value, float) and not math.isfinite(value) for value in self.values.values())

    @property
    def count(self) -> int:
        return int(self.values.get("count", 0))

    def sentence(self) -> str:
        return "  ".join(f"{name} {value:.4g}" for name, value in self.values.items() if isinstance(value, float))

    def _asdict(self) -> dict[str, Any]:
        return dict(self.values)


def rate_scores(scores: Scores, name: str | None = None) -> float:
    """The score `name`, by default the main one, made so that higher is better; minus infinity for NaN.

    `balanced_accuracy` is the main score where classes are equally frequent, as it is computed only where not. Raises
    `ValueError` for a score that these images do not have.
    """
    value = scores.main if name is None else scores._asdict().get(name)
    if value is None and name == "balanced_accuracy":
        value = scores.main
    if not isinstance(value, int | float):
        known = [key for key, other in scores._asdict().items() if isinstance(other, float)]
        raise ValueError(f"best_by={name} is no score of these images; there are {', '.join(known)}")
    if math.isnan(value):
        return -math.inf
    return -value if name in LOWER_IS_BETTER else value


def restore_scores(values: Mapping[str, Any]) -> Any:
    """Scores from the names and values that `_asdict` gave, as a run's records hold them."""
    for scores in (ClassificationScores, MultiLabelScores, SegmentationScores):
        if {*scores._fields} >= values.keys() >= {*scores._fields} - scores._field_defaults.keys():
            return scores(**values)
    return OtherScores(values)


def score_images(student: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    """The student's scores for whole images, (b, k)."""
    return student(images)


def score_pixels(
    student: nn.Module, images: Tensor, target: Tensor, *, window: tuple[int, int] | None = None
) -> Tensor:
    """The student's scores at the size of the masks `target` (b, h, w), whatever the size of the images.

    `window` as in `sliding_window.score_map`.
    """
    if target.ndim != 3:
        raise ValueError(f"labels {tuple(target.shape)} are not labels of pixels, (b, h, w)")
    return score_map(student, images, (target.shape[1], target.shape[2]), window=window)


def measure(
    student: nn.Module,
    batches: Iterable[Any],
    metric: nn.Module,
    *,
    score: Scorer = score_images,
    device: str | torch.device = "cpu",
    precision: torch.dtype | None = None,
    collector: Collector | None = None,
) -> Any:
    """Computes `metric` from the student's logits on all `batches`, which have `.images` and `.target`.

    The `collector` is given the same logits and labels.

    `precision` bfloat16 or float16 runs the student under autocast; the metric gets float32 all the same. If
    torch.distributed is initialized, every process gives its own images, possibly none, and all get the common scores.
    """
    device = torch.device(device)
    half = precision in (torch.bfloat16, torch.float16)
    adding: Any = metric.to(device)  # with torchmetrics' update and compute
    with set_mode(student, training=False), torch.no_grad():
        for batch in batches:
            target = batch.target.to(device, non_blocking=True)
            with torch.autocast(device.type, dtype=precision if half else None, enabled=half):
                logits = score(student, batch.images.to(device, non_blocking=True), target)
            adding.update(logits.float(), target)
            if collector is not None:
                collector.update(logits.float(), target)
    if not adding.update_called and not is_distributed():
        raise ValueError("there is no image to evaluate on: the loader gave no batch")
    return adding.compute()
