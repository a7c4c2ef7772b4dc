"""Folders with one folder per class: `train/cat/1.jpg`, `val/cat/2.jpg`, or `cat/1.jpg` without splits."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import compress

from ...errors import count_of
from .base import ImageFileDataset
from .splits import DatasetSplits, parse_split

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".png", ".gif", ".webp", ".avif"),
    *(".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
    ".npy",
)


def open_folder(folder: str) -> DatasetSplits:
    """Opens the splits of a folder; a folder that holds class folders directly is all "train".

    Images in folders below a class folder belong to its class. Links are followed. Hidden files and files that are not
    images are left out and counted in a note. Raises `ValueError` for a folder of another form.
    """
    names = list_folders(folder)
    splits: dict[str, list[str]] = {}
    for name in names:
        if parse_split(name):
            splits.setdefault(parse_split(name), []).append(name)
    if not splits.get("train") and len(names) > sum(map(len, splits.values())):
        splits = {"train": [""]}  # then folders called test or val are classes
    if not splits:
        raise ValueError(_say_no_classes(folder))
    for split, split_folders in splits.items():
        if len(split_folders) > 1:
            raise ValueError(
                f"{folder} holds {' and '.join(split_folders)}, which both mean its {split} split; keep one"
            )
    datasets, notes = {}, []
    for split, (name,) in splits.items():
        datasets[split], split_notes = open_class_folders(os.path.join(folder, name) if name else folder)
        notes += split_notes
    return DatasetSplits(datasets, tuple(notes))


def open_class_folders(folder: str) -> tuple[ImageFileDataset, list[str]]:
    """Opens the images of a folder of class folders, sorted by class and path, with notes on what was left out."""
    paths: list[str] = []
    labels: list[int] = []
    classes: list[str] = []
    ignored: Counter[str] = Counter()
    nested = 0
    for name in list_folders(folder):
        images = sorted(walk(os.path.join(folder, name), name, frozenset(), ignored))
        classname = unicodedata.normalize("NFC", name)  # file systems differ in how they compose accents
        if classname not in classes:
            classes.append(classname)
        paths += images
        labels += [classes.index(classname)] * len(images)
        nested += sum(path.count(os.sep) > 1 for path in images)
    is_kept = select_images(paths, ignored)
    paths, labels = list(compress(paths, is_kept)), list(compress(labels, is_kept))
    loose = sum(is_image(name) for name in os.listdir(folder))
    if not paths:
        raise ValueError(_say_no_classes(folder))
    return ImageFileDataset(folder, paths, labels, classes=classes), list(_describe(folder, ignored, nested, loose))


def list_folders(folder: str) -> list[str]:
    """Lists the names of the folders in a folder, sorted and without hidden ones."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not is_hidden(entry.name))


def walk(folder: str, relative: str, above: frozenset[str], ignored: Counter[str]) -> Iterator[str]:
    """Yields the relative paths of the images in and below `folder`; does not follow a link to a folder above."""
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            path = os.path.join(relative, entry.name)
            if is_hidden(entry.name):
                ignored["hidden"] += 1
            elif entry.is_dir():
                yield from walk(entry.path, path, above | {real}, ignored)
            elif is_image(entry.name):
                yield path
            else:
                ignored["other"] += 1


def select_images(paths: Sequence[str], ignored: Counter[str]) -> list[bool]:
    """Which of the files to take for images: beside others, an `.npy` file holds something else, such as features."""
    are_arrays = [path.lower().endswith(".npy") for path in paths]
    if all(are_arrays):
        return [True] * len(paths)
    if any(are_arrays):
        ignored["other"] += sum(are_arrays)
    return [not is_array for is_array in are_arrays]


def is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def is_image(name: str) -> bool:
    return not is_hidden(name) and os.path.splitext(name)[1].lower() in EXTENSIONS


def _describe(folder: str, ignored: Counter[str], nested: int, loose: int) -> Iterator[str]:
    yield from describe_left_out(folder, ignored)
    if nested:
        yield f"{folder}: {count_of(nested, 'image')} in folders below a class folder taken for that class"
    if loose:
        yield f"{folder}: left out {count_of(loose, 'image')} beside the class folders"


def describe_left_out(folder: str, ignored: Counter[str]) -> Iterator[str]:
    """A note on the files that are not images, if any."""
    if ignored:
        counts = [count_of(ignored[reason], f"{reason} file") for reason in ("hidden", "other") if ignored[reason]]
        yield f"{folder}: left out {' and '.join(counts)}, not images"


def _say_no_classes(folder: str) -> str:
    names = os.listdir(folder)
    if not names:
        return f"{folder} is empty; it must hold one folder of images per class"
    images = sum(is_image(name) for name in names)
    if images:
        advice = "put those of each class into a folder of its own"
        return f"{folder} holds {count_of(images, 'image')} but no class folders; {advice}"
    known = " ".join(EXTENSIONS)
    return f"{folder} holds no images; it must hold one folder of images per class (extensions: {known})"
