"""Folders of images and folders of masks, matched by file name."""

import os
import unicodedata
from collections import Counter
from collections.abc import Container, Sequence
from itertools import compress
from typing import NamedTuple

from ...errors import count_of
from .base import ImageFileDataset
from .image_folder import describe_left_out, list_folders, select_images, walk
from .label_files import find_label_map
from .masks import RawMaskDataset
from .splits import DatasetSplits, parse_split

IMAGES = ("images", "image", "imgs", "img", "jpegimages")
MASKS = ("masks", "mask", "labels", "label", "annotations", "annotation", "gt", "segmentation")
# suffixes of mask folders, as in `train` and `trainannot`
MASK_ENDS = ("annot", *(f"{mark}{name}" for mark in ("_", "-", "") for name in MASKS))
MARKS = ("_mask", "_L", "_label")  # suffixes of mask files, as in `1.jpg` and `1_mask.png`


class SplitFolders(NamedTuple):
    """The folders of a split's images and masks, relative to the source; None if it has no masks."""

    images: str
    masks: str | None


def open_mask_folder(folder: str) -> DatasetSplits:
    """Opens the images of a folder with masks of the same names.

    The folders are called `images` and `masks` (or have other usual names). They contain the splits, or the splits
    contain them, or they are called `train` and `trainannot`. Raises `ValueError` for a folder of another form, and for
    an image without a mask or a mask without an image.
    """
    folders = find_split_folders(folder)
    if not folders:
        raise ValueError(
            f"{folder} holds no images with masks; it must hold the folders images and masks, with the same file names"
            " in both, or set task=classification to learn one class per image"
        )
    splits, notes = {}, []
    for split, folders_of_split in folders.items():
        if folders_of_split.masks is None:
            notes.append(f"{folder}: the {split} split has no masks and is left out")
            continue
        splits[split], split_notes = _match_files(folder, folders_of_split)
        notes += split_notes
    return DatasetSplits(splits, tuple(notes), find_label_map(folder))


def find_split_folders(folder: str) -> dict[str, SplitFolders]:
    """Finds the folders of images and masks of each split; {} for a folder of another form.

    Raises `ValueError` for two folders that mean the same split.
    """
    if folders_of_split := _find_folders(folder):
        images, masks = folders_of_split
        below = _find_splits(os.path.join(folder, images))
        if not below:
            return {"train": SplitFolders(images, masks)}
        other = _find_splits(os.path.join(folder, masks))
        return {
            split: SplitFolders(
                os.path.join(images, name), os.path.join(masks, other[split]) if split in other else None
            )
            for split, name in below.items()
        }
    beside = {name.lower(): name for name in list_folders(folder)}
    folders = {}
    for split, name in sorted(_find_splits(folder).items(), key=lambda item: item[0] != "train"):
        masks = next((beside[name.lower() + end] for end in MASK_ENDS if name.lower() + end in beside), None)
        if masks is not None:
            folders[split] = SplitFolders(name, masks)
        elif folders_of_split := _find_folders(os.path.join(folder, name)):
            folders[split] = SplitFolders(*(os.path.join(name, subfolder) for subfolder in folders_of_split))
        elif folders:
            folders[split] = SplitFolders(name, None)
    return folders


def _find_folders(folder: str) -> tuple[str, str] | None:
    """Finds the folder of images and the folder of masks in a folder."""
    names = {name.lower(): name for name in list_folders(folder)}
    images = next((names[name] for name in IMAGES if name in names), None)
    masks = next((names[name] for name in MASKS if name in names), None)
    return None if images is None or masks is None else (images, masks)


def _find_splits(folder: str) -> dict[str, str]:
    """Finds the folders in a folder that are splits. Returns split -> folder."""
    folders: dict[str, str] = {}
    for name in list_folders(folder):
        split = parse_split(name)
        if split in folders:
            raise ValueError(f"{folder} holds {folders[split]} and {name}, which both mean its {split} split; keep one")
        if split is not None:
            folders[split] = name
    return folders


def is_mask_folder(folder: str) -> bool:
    """Whether each training image in a folder has a mask, and each mask an image."""
    try:
        folders_of_split = find_split_folders(folder).get("train")
    except ValueError:  # classes may be called dev and val
        return False
    if folders_of_split is None or folders_of_split.masks is None:
        return False
    images, masks = (_list_stems(os.path.join(folder, subfolder), Counter()) for subfolder in folders_of_split)
    return bool(images) and {_strip_mark(stem, images) for stem in masks} == images.keys()


def open_listed_files(root: str, images: Sequence[str], masks: Sequence[str]) -> RawMaskDataset:
    """Opens the image and mask files on a list of the data set. Raises `ValueError` for a file that does not exist."""
    for path in (*images, *masks):
        if not os.path.isfile(os.path.join(root, path)):
            raise ValueError(f"{os.path.join(root, path)} is on a list of its split, but does not exist")
    return create_mask_file_dataset(root, images, masks)


def create_mask_file_dataset(root: str, images: Sequence[str], masks: Sequence[str]) -> RawMaskDataset:
    """Creates a data set of image files and mask files; paths are relative to `root`."""
    unused_labels = [0] * len(images)
    return RawMaskDataset(
        ImageFileDataset(root, images, unused_labels, classes=()),
        ImageFileDataset(root, masks, unused_labels, classes=()),
    )


def _match_files(folder: str, folders_of_split: SplitFolders) -> tuple[RawMaskDataset, list[str]]:
    """Matches the images in one folder with the masks in the other; also returns notes on what was left out."""
    assert folders_of_split.masks is not None
    ignored: Counter[str] = Counter()
    images = _list_stems(os.path.join(folder, folders_of_split.images), ignored)
    masks: dict[str, list[str]] = {stem: [] for stem in images}
    for stem, paths in _list_stems(os.path.join(folder, folders_of_split.masks), ignored).items():
        masks.setdefault(_strip_mark(stem, images), []).extend(paths)
    unmatched = [os.path.join(folder, folders_of_split.masks, masks[stem][0]) for stem in masks if stem not in images]
    _refuse_unmatched(unmatched, f"has no image of its name in {os.path.join(folder, folders_of_split.images)}")
    unmatched = [os.path.join(folder, folders_of_split.images, images[stem][0]) for stem in images if not masks[stem]]
    _refuse_unmatched(unmatched, f"has no mask of its name in {os.path.join(folder, folders_of_split.masks)}")
    for paths_by_stem, subfolder in ((images, folders_of_split.images), (masks, folders_of_split.masks)):
        for paths in paths_by_stem.values():
            if len(paths) > 1:
                raise ValueError(f"{os.path.join(folder, subfolder)} holds {paths[0]} and {paths[1]}; keep one of them")
    pairs = create_mask_file_dataset(
        folder,
        [os.path.join(folders_of_split.images, images[stem][0]) for stem in sorted(images)],
        [os.path.join(folders_of_split.masks, masks[stem][0]) for stem in sorted(images)],
    )
    return pairs, list(describe_left_out(folder, ignored))


def _refuse_unmatched(paths: Sequence[str], problem: str) -> None:
    if paths:
        others = f" (and {count_of(len(paths) - 1, 'more such file')})" if len(paths) > 1 else ""
        raise ValueError(f"{paths[0]} {problem}{others}")


def _list_stems(folder: str, ignored: Counter[str]) -> dict[str, list[str]]:
    """Lists the relative paths of the images below a folder, by path without suffix."""
    stems: dict[str, list[str]] = {}
    paths = sorted(walk(folder, "", frozenset(), ignored))
    for path in compress(paths, select_images(paths, ignored)):
        stem = unicodedata.normalize(
            "NFC", os.path.splitext(path)[0]
        )  # file systems differ in how they compose accents
        stems.setdefault(stem, []).append(path)
    return stems


def _strip_mark(stem: str, known: Container[str]) -> str:
    """The stem of the image that belongs to the stem of a mask."""
    if stem in known:
        return stem
    return next((stem.removesuffix(mark) for mark in MARKS if stem.removesuffix(mark) in known), stem)
