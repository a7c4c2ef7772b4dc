"""Folders of images beside folders of their masks, matched by name."""

import os
from collections import Counter
from collections.abc import Container, Sequence
from typing import NamedTuple

from .base import ImageFileDataset
from .image_folder import folders_in, left_out, walk
from .label_files import find_label_map
from .masks import RawMaskDataset
from .splits import DatasetSplits, split_of

IMAGES = ("images", "image", "imgs", "img", "jpegimages")
MASKS = ("masks", "mask", "labels", "label", "annotations", "annotation", "gt", "segmentation")
MASK_ENDS = ("annot", *(f"{mark}{name}" for mark in ("_", "-", "") for name in MASKS))  # of `train` + `trainannot`
MARKS = ("_mask", "_L", "_label")  # what may follow an image's name in that of its mask


class Place(NamedTuple):
    """Where a split's images and masks lie, relative to the source; no masks: it has none."""

    images: str
    masks: str | None


def open_mask_folder(folder: str) -> DatasetSplits:
    """The images of a folder with the masks of the same names.

    They lie in `images` and `masks` (or folders of the usual other names), which may hold the splits or lie in them, or
    in `train` and `trainannot`. Raises `ValueError` for a folder of another form, and names the first image without a
    mask and the first mask without an image.
    """
    places = find_places(folder)
    if not places:
        raise ValueError(
            f"{folder} holds no images with masks; it must hold the folders images and masks, with the same file names"
            " in both, or set task=classification to learn one class per image"
        )
    splits, notes = {}, []
    for split, place in places.items():
        if place.masks is None:
            notes.append(f"{folder}: the {split} split has no masks and is left out")
            continue
        splits[split], more = _matched(folder, place)
        notes += more
    return DatasetSplits(splits, tuple(notes), find_label_map(folder))


def find_places(folder: str) -> dict[str, Place]:
    """Where the images and masks of each split lie; nothing where the folder is of another form.

    Raises `ValueError` for two folders that mean the same split.
    """
    if place := _place(folder):
        images, masks = place
        below = _splits_in(os.path.join(folder, images))
        if not below:
            return {"train": Place(images, masks)}
        other = _splits_in(os.path.join(folder, masks))
        return {
            split: Place(os.path.join(images, name), os.path.join(masks, other[split]) if split in other else None)
            for split, name in below.items()
        }
    beside = {name.lower(): name for name in folders_in(folder)}
    places = {}
    for split, name in sorted(_splits_in(folder).items(), key=lambda item: item[0] != "train"):
        masks = next((beside[name.lower() + end] for end in MASK_ENDS if name.lower() + end in beside), None)
        if masks is not None:
            places[split] = Place(name, masks)
        elif place := _place(os.path.join(folder, name)):
            places[split] = Place(*(os.path.join(name, each) for each in place))
        elif places:
            places[split] = Place(name, None)
    return places


def _place(folder: str) -> tuple[str, str] | None:
    """The folder of images and the folder of masks that a folder holds."""
    names = {name.lower(): name for name in folders_in(folder)}
    images = next((names[name] for name in IMAGES if name in names), None)
    masks = next((names[name] for name in MASKS if name in names), None)
    return None if images is None or masks is None else (images, masks)


def _splits_in(folder: str) -> dict[str, str]:
    """The folders in a folder that are splits, by what they mean."""
    found: dict[str, str] = {}
    for name in folders_in(folder):
        split = split_of(name)
        if split in found:
            raise ValueError(f"{folder} holds {found[split]} and {name}, which both mean its {split} split; keep one")
        if split is not None:
            found[split] = name
    return found


def is_mask_folder(folder: str) -> bool:
    """Whether a folder plainly is of this form: each training image has a mask, and each mask an image."""
    try:
        place = find_places(folder).get("train")
    except ValueError:  # classes may happen to be called dev and val
        return False
    if place is None or place.masks is None:
        return False
    images, masks = (_stems(os.path.join(folder, each), Counter()) for each in place)
    return bool(images) and {_unmarked(stem, images) for stem in masks} == images.keys()


def open_listed_files(root: str, images: Sequence[str], masks: Sequence[str]) -> RawMaskDataset:
    """Image files and mask files that a list of the data set names; `ValueError` for one that does not exist."""
    for path in (*images, *masks):
        if not os.path.isfile(os.path.join(root, path)):
            raise ValueError(f"{os.path.join(root, path)} is on a list of its split, but does not exist")
    return create_mask_file_dataset(root, images, masks)


def create_mask_file_dataset(root: str, images: Sequence[str], masks: Sequence[str]) -> RawMaskDataset:
    """Image files and their mask files, paths relative to `root`."""
    none = [0] * len(images)
    return RawMaskDataset(
        ImageFileDataset(root, images, none, classes=()), ImageFileDataset(root, masks, none, classes=())
    )


def _matched(folder: str, place: Place) -> tuple[RawMaskDataset, list[str]]:
    """The images that lie in one folder with their masks in the other, and a note on what was left out."""
    assert place.masks is not None
    ignored: Counter[str] = Counter()
    images = _stems(os.path.join(folder, place.images), ignored)
    masks: dict[str, list[str]] = {stem: [] for stem in images}
    for stem, paths in _stems(os.path.join(folder, place.masks), ignored).items():
        masks.setdefault(_unmarked(stem, images), []).extend(paths)
    lone = [os.path.join(folder, place.masks, masks[stem][0]) for stem in masks if stem not in images]
    _refuse_lone(lone, f"has no image of its name in {os.path.join(folder, place.images)}")
    lone = [os.path.join(folder, place.images, images[stem][0]) for stem in images if not masks[stem]]
    _refuse_lone(lone, f"has no mask of its name in {os.path.join(folder, place.masks)}")
    for found, where in ((images, place.images), (masks, place.masks)):
        for paths in found.values():
            if len(paths) > 1:
                raise ValueError(f"{os.path.join(folder, where)} holds {paths[0]} and {paths[1]}; keep one of them")
    pairs = create_mask_file_dataset(
        folder,
        [os.path.join(place.images, images[stem][0]) for stem in sorted(images)],
        [os.path.join(place.masks, masks[stem][0]) for stem in sorted(images)],
    )
    return pairs, list(left_out(folder, ignored))


def _refuse_lone(paths: Sequence[str], what: str) -> None:
    if paths:
        more = f" (and {len(paths) - 1} more such files)" if len(paths) > 1 else ""
        raise ValueError(f"{paths[0]} {what}{more}")


def _stems(folder: str, ignored: Counter[str]) -> dict[str, list[str]]:
    """Relative paths of the images below a folder by what they are without their endings."""
    stems: dict[str, list[str]] = {}
    for path in sorted(walk(folder, "", frozenset(), ignored)):
        stems.setdefault(os.path.splitext(path)[0], []).append(path)
    return stems


def _unmarked(stem: str, known: Container[str]) -> str:
    """The image's stem that a mask's stands for."""
    if stem in known:
        return stem
    return next((stem.removesuffix(mark) for mark in MARKS if stem.removesuffix(mark) in known), stem)
