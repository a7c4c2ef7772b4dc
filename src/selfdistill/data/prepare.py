"""Prepares data sets for training: opens, checks and caches them, and chooses open settings.

All of this decodes each image once.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import NamedTuple

import torch

from ..config.recipe import DataPart
from ..errors import count_of
from .cache.cached import CachedDataset
from .datasets.base import LabeledDataset
from .datasets.conversion import MODES
from .datasets.exclusion import find_unusable
from .datasets.registry import open_stored
from .datasets.splits import parse_split
from .defaults import add_statistics, choose_from_headers, describe_16_bits, describe_range, needs_statistics
from .reading import check_images
from .split import Splits, describe_splits, open_splits
from .statistics import PixelStatistics
from .task_data import TaskData
from .transforms.base import Transform
from .transforms.image import find_draft_side

CPU = torch.device("cpu")
MOST_NAMED = 5  # images that are left out, in notes
# settings that decide how images are transformed, not which images are used
TRANSFORM_SETTINGS = {
    "image_size",
    "value_range",
    "gray_range",
    "augment",
    "draft",
    "mean",
    "std",
    "short_side",
    "window",
    "drop_last",
    "sampler",
    "finished",
}


class PreparedData(NamedTuple):
    """Data sets ready for training and evaluation, and the resolved settings."""

    settings: DataPart
    splits: Splits
    train: CachedDataset
    held_out: CachedDataset | None  # the images for evaluation
    held_out_split: str  # "val", or "test" without a validation split
    test: LabeledDataset | None  # the images for a test at the end, where `held_out` are others
    notes: tuple[str, ...]  # sentences to show to the user


class OpenedData:
    """An open data set and what was read from its images, shared by the runs of a process.

    It keeps only what the last call of `prepare_data` used.
    """

    def __init__(self) -> None:
        self._source: tuple[str, str] | None = None
        self._splits: Splits | None = None
        self._statistics: dict[str, PixelStatistics] = {}
        self._cached: dict[str, CachedDataset] = {}
        self._checked: tuple[str, str] | None = None
        self._unusable: dict[str, str] | None = None  # by name, with the reason

    def open_splits(self, settings: DataPart, task: TaskData) -> Splits:
        """The splits that the settings describe; reuses the last ones if the source is the same."""
        source = _identify_source(settings, task)
        if self._splits is None or source != self._source:
            self._source, self._splits = source, open_splits(settings, task)
            self._statistics, self._cached = {}, {}
        return self._splits

    def leave_out_unusable(self, settings: DataPart, task: TaskData) -> tuple[DataPart, list[str]]:
        """With `on_error=skip`, the settings with the names of all images that cannot be used, and notes on them.

        Names that are there already stay: a run goes on with the images that it began with.
        """
        if settings.on_error != "skip" or settings.exclude is not None:
            return settings, []
        source = _identify_source(settings, task)
        if self._unusable is None or source != self._checked:
            sources = dict.fromkeys([str(settings.source), *_list_other_sources(settings)])
            stored = {name: open_stored(settings, name, task) for name in sources}
            self._checked, self._unusable = source, {}
            for name, each in stored.items():
                self._unusable |= find_unusable(settings, name, each)
        notes = []
        if self._unusable:
            count = count_of(len(self._unusable), "image")
            notes = [f"data.on_error=skip leaves out {count} that cannot be used, which data.exclude of the run lists"]
            notes += list(self._unusable.values())[:MOST_NAMED]
        return settings.model_copy(update={"exclude": list(self._unusable)}), notes

    def find_statistics(self, dataset: LabeledDataset, settings: DataPart, task: TaskData) -> PixelStatistics:
        """The pixel statistics of the training images for this size and these channels, computed or not."""
        key = settings.model_dump_json(include={"image_size", "channels", "value_range", "gray_range", "short_side"})
        if key not in self._statistics:
            assert settings.channels is not None and isinstance(settings.image_size, tuple)
            view = task.statistics_view(settings, settings.image_size)
            self._statistics[key] = PixelStatistics(dataset, settings, *view)
        return self._statistics[key]

    def find_cached(self, dataset: LabeledDataset, transform: Transform, cache: str, split: str) -> CachedDataset:
        """The cached data set, filled or not; reuses the last one if it holds the same images."""
        cached = CachedDataset(dataset, transform, cache)
        if split not in self._cached or not self._cached[split].holds_same_images(cached):
            self._cached[split] = cached
        return self._cached[split]


def _identify_source(settings: DataPart, task: TaskData) -> tuple[str, str]:
    """Equal for settings that open the same images; usual numbers of channels do not change how these are read."""
    if settings.channels in MODES:
        settings = settings.model_copy(update={"channels": None})
    return (task.name, settings.model_dump_json(exclude=TRANSFORM_SETTINGS))


def _list_other_sources(settings: DataPart) -> list[str]:
    """The validation images' own source, unless they are a split of the same."""
    return [settings.val] if settings.val is not None and parse_split(settings.val) is None else []


def prepare_data(
    settings: DataPart,
    task: TaskData,
    *,
    cache: str = "none",
    device: torch.device = CPU,
    opened: OpenedData | None = None,
) -> PreparedData:
    """Opens data sets, chooses open settings, checks the images and fills the caches.

    A first pass reads the headers of the images to choose size and channels. A second pass decodes the images. It
    checks them, computes mean and std, and keeps decoded images as `cache` says. `device` is the training device. With
    `on_error=skip` a pass of its own checks all images before, and the second one decodes what must be kept or counted.

    Runs whose settings name the same source share `opened`, so that a later run does not read the images again. Raises
    `ValueError` in one sentence for data that cannot be trained on.
    """
    opened = opened or OpenedData()
    given = settings
    settings, skipped = opened.leave_out_unusable(given, task)
    splits = opened.open_splits(settings, task)
    for dataset in splits[:3]:
        if settings is not given and dataset is not None:
            dataset.is_decoded = True  # by the search for what to leave out
    held_out_split = "test" if splits.val is None else "val"
    chosen = choose_from_headers(settings, splits, task)
    unnormalized = _without_normalization(chosen)  # caches keep images before normalization
    train = opened.find_cached(splits.train, task.train_transform(unnormalized), cache, "train")
    statistics = opened.find_statistics(splits.train, chosen, task)
    kept = splits.val if splits.val is not None else splits.test  # the held-out images that are scored
    held_out = None
    if kept is not None:
        held_out = opened.find_cached(kept, task.eval_transform(unnormalized), cache, held_out_split)
    with _fill_caches([train] if held_out is None else [train, held_out], device):
        check_images(splits.train, [*train.unfilled, *([statistics] if needs_statistics(chosen) else [])])
        for dataset in (splits.val, splits.test):
            if dataset is not None:
                check_images(dataset, held_out.unfilled if held_out is not None and dataset is kept else [])
    return PreparedData(
        settings=add_statistics(chosen, statistics),
        splits=splits,
        train=train,
        held_out=held_out,
        held_out_split=held_out_split,
        test=None if kept is splits.test or splits.test is None or splits.test.is_all_ignored() else splits.test,
        notes=(
            *skipped,
            *splits.notes,
            *describe_splits(splits, settings.channels),
            *_describe_pixels(settings, chosen, statistics),
            *describe_16_bits(splits, chosen),
            *_describe_draft(splits.train, chosen),
        ),
    )


def _describe_pixels(settings: DataPart, chosen: DataPart, statistics: PixelStatistics) -> list[str]:
    notes = []
    if chosen.value_range is not None and settings.value_range is None:
        notes.append(describe_range(chosen.value_range))
    if needs_statistics(chosen) and (levels := statistics.find_narrow_range()):
        notes.append(
            f"the pixels of the training images lie between {levels[0]} and {levels[1]} of 255: hardly any contrast"
        )
    return notes


def _describe_draft(images: LabeledDataset, chosen: DataPart) -> list[str]:
    """A note on large photographs that could be read in less time."""
    side = 0 if chosen.draft else find_draft_side(chosen)
    areas = [each.width * each.height for each in images.formats] if side else []
    if not areas or (area := median(areas)) < (2 * side) ** 2:
        return []
    return [f"images of about {area / 1e6:.2g} megapixels: data.draft=true reads JPEG files of this size in less time"]


@contextmanager
def _fill_caches(caches: Sequence[CachedDataset], device: torch.device) -> Iterator[None]:
    """Makes room for all images before the block reads them, and then moves those that are kept on the device there.

    Both come before training, which needs memory too. After an error nothing half-written stays.
    """
    try:
        for cached in caches:
            cached.open_images(device)
        yield
        for cached in caches:
            cached.on(device)
    except BaseException:
        for cached in caches:
            cached.abandon()
        raise


def _without_normalization(settings: DataPart) -> DataPart:
    channels = settings.channels or 0
    return settings.model_copy(update={"mean": [0.0] * channels, "std": [1.0] * channels})
