"""Chooses the data settings that a recipe leaves open, from the training images."""

from ..config.recipe import DataPart
from ..errors import count_of
from .datasets.base import LabeledDataset, Subset
from .datasets.image_io import DEEP, GRAY, GRAY_16
from .reading import read_images
from .split import VAL_FRACTION, Splits
from .statistics import PixelStatistics
from .task_data import Size, TaskData


def choose_defaults(settings: DataPart, splits: Splits, task: TaskData) -> DataPart:
    """Fills in the settings that are still open, from the training images.

    Channels: 1 if all images are gray, else 3; alpha is used only with channels=4. The task chooses the size, the
    augmentations and the view of an image that `mean` and `std` are computed from. What was found out about the labels,
    such as the names of mask values, becomes a setting too.
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
    values = settings.model_dump()
    formats = splits.train.formats
    size = _choose_size(settings, {(image.height, image.width) for image in formats}, task)
    channels = settings.channels or (1 if all(image.mode in GRAY for image in formats) else 3)
    augmentations = task.choose_augmentations(settings, size, mirrorable=splits.train.mirrorable)
    values |= {"image_size": size, "channels": channels, "augment": augmentations}
    values["gray_range"] = _choose_gray_range(settings, splits)
    task.check_augmentations(augmentations, size, channels)
    _check_statistics(settings, channels)
    if settings.val_fraction is None and _is_held_out(splits):
        values["val_fraction"] = VAL_FRACTION
    return DataPart.model_validate(values | splits.train.settings())


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


def _choose_gray_range(settings: DataPart, splits: Splits) -> tuple[float, float] | None:
    """The range of gray images of more than 8 bits; None if there are none, or if other images have 8 bits."""
    datasets = [dataset for dataset in (splits.train, splits.val, splits.test) if dataset is not None]
    modes = {image.mode for image in splits.train.formats}
    if settings.gray_range is not None:
        if not any(image.mode in DEEP for dataset in datasets for image in dataset.formats):
            raise ValueError(f"data.gray_range={list(settings.gray_range)} has no effect on images of 8 bits")
        return settings.gray_range
    if settings.mean is not None and settings.std is not None:
        return None  # they were measured on the whole range, by a run before there was this setting
    if modes <= DEEP:
        return splits.train.gray_range
    for images in datasets:
        _refuse_unknown_range(images)
    return None


def describe_16_bits(splits: Splits, chosen: DataPart) -> list[str]:
    """A note on the first gray image of 16 bits that is read with their whole range, as it is beside others of 8."""
    if chosen.gray_range is not None:
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
    modes = {image.mode for image in images.formats} & (DEEP - GRAY_16)
    if modes:
        name = next(images.name(i) for i in range(len(images)) if images.format(i).mode in modes)
        raise ValueError(
            f"{name} has gray values of 32 bits (mode {modes.pop()}) and other images have 8; say with"
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
