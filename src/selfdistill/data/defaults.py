"""Chooses the data settings that a recipe leaves open, from the training images."""

from collections.abc import Iterable, Sequence

from ..config.recipe import DataPart
from ..errors import count_of
from .datasets.bands import count_bands
from .datasets.base import LabeledDataset, Subset
from .datasets.conversion import GRAY, GRAY_16, MODES, PixelFormat, Range, has_known_range, is_deep
from .datasets.image_io import Format
from .reading import read_images
from .split import VAL_FRACTION, Splits
from .statistics import PixelStatistics
from .task_data import Size, TaskData


def choose_defaults(settings: DataPart, splits: Splits, task: TaskData) -> DataPart:
    """Fills in the settings that are still open, from the training images.

    Channels: see `choose_channels`; alpha is used only with channels=4. The task chooses the size, the augmentations
    and the view of an image that `mean` and `std` are computed from. What was found out about the labels, such as the
    names of mask values, becomes a setting too.
    """
    chosen = choose_from_headers(settings, splits, task)
    assert chosen.channels is not None and isinstance(chosen.image_size, tuple)
    statistics = PixelStatistics(splits.train, chosen, *task.statistics_view(chosen, chosen.image_size))
    if needs_statistics(chosen):
        read_images(splits.train, [statistics])
    return add_statistics(chosen, statistics)


def choose_from_headers(settings: DataPart, splits: Splits, task: TaskData) -> DataPart:
    """As `choose_defaults`, but leaves `mean` and `std` open, so that no image of 8 bits is decoded."""
    _refuse_unused_settings(settings, task)
    if settings.draft and not isinstance(splits.train.source(0), str | bytes):
        raise ValueError("data.draft=true has no effect on images that come decoded: it concerns JPEG files")
    values = settings.model_dump()
    if settings.val_fraction is None and _is_held_out(splits):
        values["val_fraction"] = VAL_FRACTION
    found = splits.train.settings()
    if found.get("finished"):
        return DataPart.model_validate(values | found)
    if settings.finished:
        raise ValueError("data.finished=true has no effect: only a data set given in Python gives finished tensors")
    formats = splits.train.formats
    size = _choose_size(settings, {(image.height, image.width) for image in formats}, task)
    channels = settings.channels or choose_channels(formats)
    augmentations = task.choose_augmentations(settings, size, mirrorable=splits.train.mirrorable)
    values |= {"image_size": size, "channels": channels, "augment": augmentations}
    values["value_range"] = _choose_value_range(settings, splits, channels)
    pixels = PixelFormat(channels, settings.gray_range, values["value_range"])
    task.check_augmentations(augmentations, size, pixels)
    _check_statistics(settings, channels)
    return DataPart.model_validate(values | found)


def needs_statistics(settings: DataPart) -> bool:
    return settings.mean is None or settings.std is None


def add_statistics(settings: DataPart, statistics: PixelStatistics) -> DataPart:
    """Fills in the computed mean and std if the settings leave them open."""
    if not needs_statistics(settings):
        return settings
    mean, std = statistics.compute()
    return settings.model_copy(update={"mean": settings.mean or mean, "std": settings.std or std})


def _refuse_unused_settings(settings: DataPart, task: TaskData) -> None:
    for name in task.idle_settings:
        if getattr(settings, name) != DataPart.model_fields[name].default:
            raise ValueError(f"data.{name}={getattr(settings, name)} has no effect on task={task.name}")


def _choose_size(settings: DataPart, sizes: set[Size], task: TaskData) -> Size:
    if isinstance(settings.image_size, int):
        return (settings.image_size, settings.image_size)
    return settings.image_size or task.choose_size(settings, sizes)


def choose_channels(formats: Iterable[Format]) -> int:
    """1 if all images are gray, the channels of arrays that agree, else 3."""
    modes = {image.mode for image in formats}
    if all(mode in GRAY for mode in modes):
        return 1
    bands = {None if ";16" in mode else count_bands(mode) for mode in modes}
    return next(iter(bands - {None}), 3) if len(bands) == 1 else 3


def _choose_value_range(settings: DataPart, splits: Splits, channels: int) -> Range | list[Range] | None:
    """The range of images that keep more than 8 bits, or other channels; None where images are reduced to 8 bits."""
    datasets = [dataset for dataset in (splits.train, splits.val, splits.test) if dataset is not None]
    _check_ranges(settings, datasets, channels)
    if settings.value_range is not None or settings.gray_range is not None:
        return settings.value_range
    if _is_complete(settings) and channels in MODES:
        return None  # of a run before there were these settings, which read 8 bits
    if channels not in MODES or all(is_deep(image.mode) for image in splits.train.formats):
        return splits.train.find_value_range(channels)
    for images in datasets:
        _refuse_unknown_range(images)
    return None


def _check_ranges(settings: DataPart, datasets: Sequence[LabeledDataset], channels: int) -> None:
    """Raises `ValueError` for ranges that do not go together or have no effect."""
    for name in ("value_range", "gray_range"):
        value = getattr(settings, name)
        has_effect = any(is_deep(image.mode) for dataset in datasets for image in dataset.formats)
        if value is not None and not has_effect and channels in MODES:
            shown = [list(pair) for pair in value] if isinstance(value, list) else list(value)
            raise ValueError(f"data.{name}={shown} has no effect on images of 8 bits")
    if settings.gray_range is not None and settings.value_range is not None:
        raise ValueError("data.gray_range reduces images to 8 bits, and data.value_range keeps their depth; give one")
    if settings.gray_range is not None and channels not in MODES:
        raise ValueError(f"data.gray_range makes images of 1, 3 or 4 channels, not of {channels}; set data.value_range")
    if isinstance(settings.value_range, list) and len(settings.value_range) != channels:
        given = count_of(len(settings.value_range), "range")
        raise ValueError(f"data.value_range has {given}, but the images have {count_of(channels, 'channel')}")


def _is_complete(settings: DataPart) -> bool:
    """Whether these are the settings of a run, which leave nothing open."""
    needed = (settings.mean, settings.std, settings.channels, settings.image_size)
    return None not in needed and isinstance(settings.augment, list)


def describe_range(value_range: Range | list[Range]) -> str:
    """A sentence on the values that images keep."""
    if isinstance(value_range, list):
        low, high = min(low for low, _ in value_range), max(high for _, high in value_range)
        each = f"each of {count_of(len(value_range), 'channel')}, within {low:g} to {high:g}"
        return f"images keep their values: a range for {each} becomes 0 to 1 (data.value_range)"
    low, high = value_range
    return f"images keep more than 8 bits: their values from {low:g} to {high:g} become 0 to 1 (data.value_range)"


def describe_16_bits(splits: Splits, chosen: DataPart) -> list[str]:
    """A note on the first gray image of 16 bits that is read with their whole range, as it is beside others of 8."""
    if chosen.gray_range is not None or chosen.value_range is not None:
        return []
    for images in (splits.train, splits.val, splits.test):
        if images is None or not any(image.mode in GRAY_16 for image in images.formats):
            continue
        name = next(images.name(i) for i in range(len(images)) if images.format(i).mode in GRAY_16)
        return [
            f"{name} is gray of 16 bits, and not all images are: its values 0 to 65535 become black to white; if they "
            f"span less, such as 0 to 4095, it is nearly black, and data.gray_range=LOW,HIGH mends that"
        ]
    return []


def _refuse_unknown_range(images: LabeledDataset) -> None:
    modes = {image.mode for image in images.formats if not has_known_range(image.mode)}
    if modes:
        name = next(images.name(i) for i in range(len(images)) if images.format(i).mode in modes)
        raise ValueError(
            f"{name} has values of unknown range (mode {modes.pop()}) and other images have 8 bits; say with"
            " data.gray_range=LOW,HIGH which of its values are black and white"
        )


def _is_held_out(splits: Splits) -> bool:
    """Whether validation and training images are parts of the same set."""
    train, val = splits.train, splits.val
    return isinstance(train, Subset) and isinstance(val, Subset) and train.dataset is val.dataset


def _check_statistics(settings: DataPart, channels: int) -> None:
    for name, values in (("mean", settings.mean), ("std", settings.std)):
        if values is None:
            continue
        if len(values) != channels:
            given = count_of(len(values), "value")
            raise ValueError(f"data.{name} has {given}, but the images have {count_of(channels, 'channel')}")
        if not all(0 <= value <= 1 for value in values):
            raise ValueError(f"data.{name}={values} is not of values in [0, 1]; divide by 255")
