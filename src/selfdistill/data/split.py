"""Opens the training, validation and test images that a recipe's data settings describe."""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from ..config.recipe import DataPart
from .datasets.base import LabeledDataset, Subset, quote_names
from .datasets.conversion import ALPHA
from .datasets.image_io import shows_first_page
from .datasets.labels import align, are_numbers, describe_combined, find_combined, find_similar
from .datasets.masks import MaskDataset
from .datasets.registry import open_source, say_hidden
from .datasets.splits import DatasetSplits, parse_split
from .random.seeds import create_generator
from .reading import check_images
from .task_data import TaskData

VAL_FRACTION = 0.2  # held out if the source has no other split
HOLD_OUT, HOLD_OUT_TEST, FRACTION = 5, 6, 7  # purposes of seeds


class Splits(NamedTuple):
    """The training, validation and test images, and sentences to show to the user."""

    train: LabeledDataset
    val: LabeledDataset | None
    test: LabeledDataset | None
    notes: tuple[str, ...]


def open_splits(settings: DataPart, task: TaskData) -> Splits:
    """Opens the images that the settings describe, with the labels that the task learns.

    Images are not opened yet (`check` does that), only masks if nobody names their values. The validation images are
    the first of these that exists: the source that `val` names, the source's own validation split, `val_fraction` of
    each training class (of all images, for masks; none where it is 0), and 20 % of the training images if there is no
    test split either. `test_fraction` then takes test images out of what is left, and `fraction` and `limit` leave out
    training images: `limit` keeps the first images of every class, as many of each as it can. Raises `ValueError` in
    one sentence, naming the file, for anything that cannot be trained on.
    """
    _refuse_idle_download(settings)
    assert settings.source is not None, "the settings are not complete"
    opened = open_source(settings, settings.source, task)
    train = _check_trainable(settings, opened)
    empty = [split for split, dataset in opened.splits.items() if not len(dataset)]
    others = {
        split: align(dataset, train.classes)
        for split, dataset in opened.splits.items()
        if split not in ("train", *empty)
    }
    notes = [*opened.notes, *_describe_labels(opened, settings.source, train.classes)]
    num_labeled = len(train)
    train, val, split_notes = _split_validation(settings, task, train, others)
    notes += split_notes
    test = others.get("test")
    test = None if test is val else test
    if settings.test_fraction is not None:
        train, test, note = _hold_out_test(settings, train, test, num_labeled)
        notes.append(note)
    notes += [f"the {split} split of {settings.source} has no images and is left out" for split in empty]
    notes += _describe_blocks(train)
    if settings.fraction is not None:
        count = len(train)
        train = take_fraction(train, settings.fraction, settings.split_seed)
        notes.append(f"data.fraction={settings.fraction:g} trains on {len(train)} of {count} images")
    if settings.limit is not None:
        train = limit_images(train, settings.limit)
    return Splits(train, val, test, tuple(notes))


class OneSplit(NamedTuple):
    """Labeled images, and sentences to show to the user."""

    images: LabeledDataset
    notes: tuple[str, ...]


def open_one_split(settings: DataPart, source: str, classes: Sequence[str], task: TaskData) -> OneSplit:
    """Opens one split of `source`, with labels as indices of `classes`: validation, else test, else train.

    It serves validation and evaluation on another source.
    """
    opened = open_source(settings, source, task, classes)
    dataset = next(opened.splits[split] for split in ("val", "test", "train") if split in opened.splits)
    if not len(dataset):
        raise ValueError(f"{source} has no rows")
    return OneSplit(align(dataset, tuple(classes)), (*opened.notes, *_describe_labels(opened, source, classes)))


def list_labels(
    settings: DataPart, source: str, classes: Sequence[str], task: TaskData
) -> dict[Path, Callable[[], Int64[Tensor, "h w"]]]:
    """Functions that read the label of each image file of a source with masks, by the file's resolved path."""
    labels = {}
    for dataset in open_source(settings, source, task, classes).splits.values():
        aligned = align(dataset, tuple(classes))
        assert isinstance(aligned, MaskDataset), "the source has masks"
        for i in range(len(aligned)):
            image = aligned.source(i)
            if isinstance(image, str):
                labels[Path(image).resolve()] = functools.partial(aligned.mask, i)
    if not labels:
        raise ValueError(f"{source} holds no image files, whose labels could be compared with")
    return labels


def _describe_blocks(train: LabeledDataset) -> list[str]:
    """A note where each shard holds one class, so that a batch of few shards holds few."""
    if train.blocks is None or train.labels.ndim > 1 or len(train.labels.unique()) < 2:
        return []
    numbers = train.blocks.numbers
    pairs = torch.stack([numbers, train.labels]).unique(dim=1).shape[1]
    if pairs > len(numbers.unique()):
        return []
    at_once = train.blocks.folder.at_once
    return [
        f"each shard holds images of one class, and batches take images from {at_once} shards at a time; shuffle the"
        " samples before you write them into shards"
    ]


def _describe_labels(opened: DatasetSplits, source: str, classes: Sequence[str]) -> Iterator[str]:
    """Notes on how the labels of a source were read, and on what class names they stand for."""
    yield from dict.fromkeys(note for dataset in opened.splits.values() for note in dataset.label_notes)
    names = dict.fromkeys(name for dataset in opened.splits.values() for name in dataset.classes)
    if similar := find_similar(list(names)):
        different = "differ only in case or spacing and are taken as different classes"
        yield f"{source}: the classes {quote_names(similar)} {different}"
    if any(dataset.has_one_label for dataset in opened.splits.values()) and (combined := find_combined(list(names))):
        yield f"{source}: {describe_combined(combined)}"
    if names and not are_numbers(classes) and any(are_numbers(dataset.classes) for dataset in opened.splits.values()):
        numbered = ", ".join(f"{k} means {name!r}" for k, name in enumerate(classes[:2]))
        yield f"{source} has numbers for classes: {numbered} and so on; scores mean nothing if it counts other classes"


def _refuse_idle_download(settings: DataPart) -> None:
    remote = ("hf:", "torchvision:")
    if settings.download and not any((name or "").startswith(remote) for name in (settings.source, settings.val)):
        raise ValueError(f"data.download=true has no effect on {settings.source}, which lies on this machine")


def _check_trainable(settings: DataPart, opened: DatasetSplits) -> LabeledDataset:
    if "train" not in opened.splits:
        available = ", ".join(opened.splits) or "none"
        raise ValueError(f"{settings.source} has no labeled split called train to learn from; it has: {available}")
    dataset = opened.splits["train"]
    if len(dataset) < 2:
        count = "one training image" if len(dataset) else "no training image"
        raise ValueError(f"{settings.source} has {count}; a network needs more to learn from")
    if len(dataset.classes) < 2:
        raise ValueError(
            f"{settings.source} has only one class, {dataset.classes[0]!r}; a classifier needs at least two"
        )
    _refuse_empty_classes(dataset, settings.source)
    return dataset


def _refuse_empty_classes(dataset: LabeledDataset, source: str) -> None:
    empty = [dataset.classes[k] for k in dataset.find_absent_classes()]
    if empty:
        hint = "; integer labels count from 0 without gaps" if all(name.isdecimal() for name in dataset.classes) else ""
        raise ValueError(f"{source} has no training image of the class {quote_names(empty)}{hint}")


def _split_validation(
    settings: DataPart, task: TaskData, train: LabeledDataset, others: dict[str, LabeledDataset]
) -> tuple[LabeledDataset, LabeledDataset | None, list[str]]:
    """The training images, the validation images, and notes about them."""
    if settings.val_fraction is not None and (settings.val is not None or "val" in others):
        holder = f"val={settings.val}" if settings.val is not None else f"the validation split of {settings.source}"
        raise ValueError(f"data.val_fraction={settings.val_fraction} has no effect beside {holder}; drop one of them")
    if settings.val is not None:
        val, notes = _open_named_validation(settings, task, train, others)
        return train, val, [*notes]
    if "val" in others:
        return train, others["val"], []
    if settings.val_fraction == 0:
        return train, None, ["data.val_fraction=0 holds out no validation image"]
    if train.blocks is not None and (settings.val_fraction is not None or "test" not in others):
        raise ValueError(
            f"data.stream reads whole shards of {settings.source}, so validation images need shards of their own: call"
            " them val-*, or name them in data.val"
        )
    if settings.val_fraction is None and "test" in others:
        note = f"{settings.source} has a test split but no validation split; data.val_fraction holds one out of train"
        return train, None, [note]
    fraction = settings.val_fraction or VAL_FRACTION
    kept, held = hold_out(train, fraction, settings.split_seed)
    share = f"{100 * fraction:g} % of {train.shares} {settings.source}"
    note = f"{share} is held out for validation: {len(held)} of {len(train)} images (split_seed {settings.split_seed})"
    return kept, held, [note]


def _open_named_validation(
    settings: DataPart, task: TaskData, train: LabeledDataset, others: dict[str, LabeledDataset]
) -> OneSplit:
    assert settings.val is not None
    split = parse_split(settings.val)
    if split in others:
        is_hidden = os.path.exists(settings.val)
        return OneSplit(
            others[split], (say_hidden(settings.val, f"the {split} split of {settings.source}"),) * is_hidden
        )
    if split is not None and not os.path.exists(settings.val):
        available = f"it has {', '.join(others)} beside train" if others else "it has no split but train"
        raise ValueError(f"data.val={settings.val} is no validation split of {settings.source}; {available}")
    return open_one_split(settings.model_copy(update=train.settings()), settings.val, train.classes, task)


def _hold_out_test(
    settings: DataPart, train: LabeledDataset, test: LabeledDataset | None, num_labeled: int
) -> tuple[LabeledDataset, LabeledDataset, str]:
    """The training images without `test_fraction` of all `num_labeled` images, these, and a note about them."""
    assert settings.test_fraction is not None
    given = f"data.test_fraction={settings.test_fraction:g}"
    if train.blocks is not None:
        raise ValueError(f"{given} does not go with data.stream, which reads whole shards; call some of them test-*")
    if test is not None:
        raise ValueError(f"{given} has no effect beside the test split of {settings.source}; drop it")
    share = settings.test_fraction * num_labeled / len(train)
    if share >= 1:
        raise ValueError(f"{given} leaves nothing to train on beside the validation images; lower it")
    held = draw_from_groups(train, lambda size: _count_held(share, size), settings.split_seed, HOLD_OUT_TEST)
    if not len(held):
        raise ValueError(f"{given} takes no image of a class that has one, and no class of {settings.source} has more")
    kept, test = split_off(train, held)
    note = f"{settings.test_fraction * 100:g} % of {train.shares} {settings.source} is held out for a test at the end"
    return kept, test, f"{note}: {len(test)} of {num_labeled} images (split_seed {settings.split_seed})"


def hold_out(dataset: LabeledDataset, fraction: float, seed: int) -> tuple[Subset, Subset]:
    """Splits off a random `fraction` of each group: at least one image, never all. Returns (kept, held out)."""
    for label, members in enumerate(dataset.groups()):
        if len(members) < 2:
            problem = f"has one image, {dataset.name(int(members[0]))}" if len(members) else "has no image"
            raise ValueError(f"class {dataset.classes[label]!r} {problem}; holding one out takes two")
    return split_off(dataset, draw_from_groups(dataset, lambda size: _count_held(fraction, size), seed, HOLD_OUT))


def _count_held(fraction: float, size: int) -> int:
    """How many of a group's images are held out: at least one, never all, and so none of one."""
    return min(max(round(fraction * size), 1), size - 1)


def take_fraction(dataset: LabeledDataset, fraction: float, seed: int) -> Subset:
    """A random `fraction` of each group, at least one image; a larger fraction holds the images of a smaller one."""
    chosen = draw_from_groups(dataset, lambda size: max(round(fraction * size), 1), seed, FRACTION)
    return dataset.subset(chosen)


def draw_from_groups(
    dataset: LabeledDataset, count: Callable[[int], int], seed: int, purpose: int
) -> Int64[Tensor, " n"]:
    """The indices, in order, of as many random images of each group as `count` says for its size."""
    chosen = [torch.empty(0, dtype=torch.int64)]
    for label, members in enumerate(dataset.groups()):
        order = torch.randperm(len(members), generator=create_generator(seed, label, purpose), device="cpu")
        chosen.append(members[order[: count(len(members))]])
    return torch.cat(chosen).sort().values


def split_off(dataset: LabeledDataset, indices: Int64[Tensor, " n"]) -> tuple[Subset, Subset]:
    """The other images, and those of `indices`."""
    is_other = torch.ones(len(dataset), dtype=torch.bool)
    is_other[indices] = False
    return dataset.subset(is_other.nonzero().flatten()), dataset.subset(indices)


def limit_images(dataset: LabeledDataset, limit: int) -> LabeledDataset:
    """Keeps the first images of every group, `limit` in total and as many of each group as possible."""
    if limit >= len(dataset):
        return dataset
    groups = dataset.groups()
    if limit < len(groups):
        count = len(groups)
        raise ValueError(f"data.limit={limit} leaves classes without a training image; it must be at least {count}")
    rank = torch.empty(len(dataset), dtype=torch.int64)  # of each image in its group
    for members in groups:
        rank[members] = torch.arange(len(members))
    first = torch.argsort(rank, stable=True)[:limit].sort().values
    return dataset.subset(first)


def check(dataset: LabeledDataset, channels: int | None = None) -> tuple[str, ...]:
    """Reads the images before they are needed, and returns notes for the user.

    Decodes data sets of up to 5,000 images, with their masks, and reads 50,000 headers of larger ones. Raises
    `ValueError` naming the first image that cannot be used. A second call costs nothing.
    """
    check_images(dataset)
    return describe_images(dataset, channels)


def describe_splits(splits: Splits, channels: int | None) -> list[str]:
    """Notes for the user on the images of all splits, after they were checked."""
    return [
        note
        for dataset in (splits.train, splits.val, splits.test)
        if dataset is not None
        for note in describe_images(dataset, channels)
    ]


def describe_images(dataset: LabeledDataset, channels: int | None) -> tuple[str, ...]:
    """Notes for the user on images that were checked."""
    has_alpha = any(image.mode in ALPHA for image in dataset.formats) and channels != 4
    notes = ["some images have an alpha channel, which is dropped unless data.channels=4"] * has_alpha
    if channels in (None, 1, 3) and len(dataset) and shows_first_page(dataset.source(0)):
        notes.append(
            f"{dataset.name(0)} has several pages, of which the first is read unless data.channels is their number"
        )
    return (*notes, *dataset.describe_labels())
