"""The interface of a task to data/: its sources and its transforms."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from PIL import Image
from torch import Tensor

from ..config.recipe import DataPart
from .datasets.conversion import PixelFormat
from .datasets.splits import DatasetSplits
from .transforms.base import Transform

Size = tuple[int, int]  # height, width
Show = Callable[[Image.Image | Tensor], Image.Image | Tensor]
Opener = Callable[[DataPart, str], DatasetSplits]  # takes the data settings, and the source's path or name


class TaskData(ABC):
    """The data that a task learns from, and how its images are transformed.

    `tasks.base.TaskKind` is a `TaskData`. The functions of data/ take one and know no task by name.
    """

    name: str
    sources: ClassVar[Mapping[str, Opener]]  # by form (see `datasets.registry`), or by the name of a built-in data set
    sources_in_words: ClassVar[str]  # `sources` as the end of a sentence
    other_labels: ClassVar[str]  # the problem with a source of another form; follows its name
    takes_columns: ClassVar[bool] = False  # whether data.label_column may be a list, of a column for each class
    idle_settings: ClassVar[tuple[str, ...]] = ()  # data settings without effect on this task

    def read_labels(
        self, opened: DatasetSplits, settings: DataPart, source: str, classes: Sequence[str] | None
    ) -> DatasetSplits:
        """Gives the labels of `source` their meaning; `classes` numbers those of another source than the recipe's."""
        return opened

    @abstractmethod
    def choose_size(self, settings: DataPart, sizes: set[Size]) -> Size:
        """The size of training images, if the settings name none, for images of these sizes."""

    @abstractmethod
    def choose_augmentations(self, settings: DataPart, size: Size, *, mirrorable: bool) -> list[str]:
        """The names of the augmentations; `mirrorable`: a mirrored image keeps its label."""

    @abstractmethod
    def check_augmentations(self, names: Sequence[str], size: Size, pixels: PixelFormat) -> None:
        """Raises `ValueError` for augmentations that do not exist or do not fit."""

    @abstractmethod
    def statistics_view(self, settings: DataPart, size: Size) -> tuple[Show, int]:
        """The view of an image that mean and std are computed from, and the maximum number of images."""

    @abstractmethod
    def train_transform(self, settings: DataPart) -> Transform:
        """The transform of training under resolved settings: augmentations up to the normalized tensor."""

    @abstractmethod
    def eval_transform(self, settings: DataPart) -> Transform:
        """The transform of evaluation under resolved settings, up to the normalized tensor."""
