"""A task as data/ sees it: where its images come from, and how they are presented."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from PIL import Image

from ..config.recipe import DataPart
from .datasets.splits import DatasetSplits
from .transforms.base import Transform

Size = tuple[int, int]  # height, width
Show = Callable[[Image.Image], Image.Image]
Opener = Callable[[DataPart, str], DatasetSplits]  # takes the data settings, and the source's path or name


class TaskData(ABC):
    """What decides which data a task learns from, and what becomes of its images.

    `tasks.base.TaskKind` is a `TaskData`; the functions of data/ take one and know no task by name.
    """

    name: str
    sources: ClassVar[Mapping[str, Opener]]  # by form (see `datasets.registry`), or by the name of a built-in data set
    sources_in_words: ClassVar[str]  # what `sources` are, as the end of a sentence
    other_labels: ClassVar[str]  # what is wrong with a source of another form, behind its name in a sentence
    idle_settings: ClassVar[tuple[str, ...]] = ()  # data settings without effect on this task

    def read_labels(
        self, opened: DatasetSplits, settings: DataPart, source: str, classes: Sequence[str] | None
    ) -> DatasetSplits:
        """What `source` holds, once it is known what its labels mean; `classes` number those of another source."""
        return opened

    @abstractmethod
    def choose_size(self, settings: DataPart, sizes: set[Size]) -> Size:
        """The size of training images, where the settings name none, for images of these sizes."""

    @abstractmethod
    def choose_augmentations(self, settings: DataPart, size: Size, *, mirrorable: bool) -> list[str]:
        """The names of the augmentations; `mirrorable`: a mirrored image keeps its label."""

    @abstractmethod
    def check_augmentations(self, names: Sequence[str], size: Size, channels: int) -> None:
        """Raises `ValueError` for augmentations that do not exist or do not fit."""

    @abstractmethod
    def statistics_view(self, settings: DataPart, size: Size) -> tuple[Show, int]:
        """What of an image the mean and the standard deviation are computed on, and of how many images at most."""

    @abstractmethod
    def train_transform(self, settings: DataPart) -> Transform:
        """The augmentations of resolved settings, with everything that follows them up to the normalized tensor."""

    @abstractmethod
    def eval_transform(self, settings: DataPart) -> Transform:
        """How evaluation shows an image, normalized, under resolved settings."""
