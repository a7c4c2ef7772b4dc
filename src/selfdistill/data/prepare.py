"""Data settings -> data sets that are ready for training: opened, checked, with every setting decided, and cached.

Each image is decoded once for all of that.
"""

from typing import NamedTuple

import torch

from ..config.recipe import DataPart
from .cache.cached import CachedDataset
from .datasets.base import LabeledDataset
from .defaults import add_statistics, choose_from_headers, needs_statistics
from .reading import check_images
from .split import Splits, describe_splits, open_splits
from .statistics import PixelStatistics
from .task_data import TaskData
from .transforms.base import Transform

CPU = torch.device("cpu")
# settings that say what becomes of images, not which ones they are
OF_TRANSFORMS = {"image_size", "channels", "augment", "mean", "std", "short_side", "window", "drop_last"}


class PreparedData(NamedTuple):
    """Data sets ready for training and evaluation, under settings that leave nothing open."""

    settings: DataPart
    splits: Splits
    train: CachedDataset
    held_out: CachedDataset | None  # what to evaluate on
    held_out_split: str  # its name: "val", or "test" where there is no validation split
    notes: tuple[str, ...]  # sentences to show to the user


class OpenedData:
    """An open data set and what was read of its images, for runs of one process to share.

    It holds what the last call of `prepare_data` used, and nothing else does.
    """

    def __init__(self) -> None:
        self._source: tuple[str, str] | None = None
        self._splits: Splits | None = None
        self._statistics: dict[str, PixelStatistics] = {}
        self._cached: dict[str, CachedDataset] = {}

    def open_splits(self, settings: DataPart, task: TaskData) -> Splits:
        """The splits that the settings describe: those of the last call where the source is the same."""
        source = (task.name, settings.model_dump_json(exclude=OF_TRANSFORMS))
        if self._splits is None or source != self._source:
            self._source, self._splits = source, open_splits(settings, task)
            self._statistics, self._cached = {}, {}
        return self._splits

    def find_statistics(self, dataset: LabeledDataset, settings: DataPart, task: TaskData) -> PixelStatistics:
        """The statistics of the training images under settings with a size and channels, computed or not."""
        key = settings.model_dump_json(include={"image_size", "channels", "short_side"})
        if key not in self._statistics:
            assert settings.channels is not None and isinstance(settings.image_size, tuple)
            view = task.statistics_view(settings, settings.image_size)
            self._statistics[key] = PixelStatistics(dataset, settings.channels, *view)
        return self._statistics[key]

    def find_cached(self, dataset: LabeledDataset, transform: Transform, cache: str, split: str) -> CachedDataset:
        """The data set with its cache, filled or not: that of the last call where it holds the same images."""
        cached = CachedDataset(dataset, transform, cache)
        if split not in self._cached or not self._cached[split].holds_same_images(cached):
            self._cached[split] = cached
        return self._cached[split]


def prepare_data(
    settings: DataPart,
    task: TaskData,
    *,
    cache: str = "none",
    device: torch.device = CPU,
    opened: OpenedData | None = None,
) -> PreparedData:
    """Opens data sets, decides what the settings leave open, checks the images and fills the caches.

    One pass over the headers of the images decides their size and channels. A second one decodes the images: it checks
    them, computes mean and std, and keeps decoded images where `cache` says; `device` is that of the training.

    `opened` is shared by runs whose settings name the same source: what one of them has read, the next one need not.
    Raises `ValueError` in one sentence for data that cannot be trained on.
    """
    opened = opened or OpenedData()
    splits = opened.open_splits(settings, task)
    others = {"val": splits.val, "test": splits.test}
    held_out_split = "test" if splits.val is None else "val"
    chosen = choose_from_headers(settings, splits, task)
    unnormalized = _without_normalization(chosen)  # caches keep images as they are before that
    train = opened.find_cached(splits.train, task.train_transform(unnormalized), cache, "train")
    train.open_images(device)
    statistics = opened.find_statistics(splits.train, chosen, task)
    check_images(splits.train, [*train.unfilled, *([statistics] if needs_statistics(chosen) else [])])
    held_out = None
    for split, dataset in others.items():
        if dataset is None:
            continue
        if split == held_out_split:
            held_out = opened.find_cached(dataset, task.eval_transform(unnormalized), cache, split)
            held_out.open_images(device)
        check_images(dataset, held_out.unfilled if held_out is not None and split == held_out_split else [])
    return PreparedData(
        settings=add_statistics(chosen, statistics),
        splits=splits,
        train=train,
        held_out=held_out,
        held_out_split=held_out_split,
        notes=(*splits.notes, *describe_splits(splits, settings.channels)),
    )


def _without_normalization(settings: DataPart) -> DataPart:
    channels = settings.channels or 0
    return settings.model_copy(update={"mean": [0.0] * channels, "std": [1.0] * channels})
