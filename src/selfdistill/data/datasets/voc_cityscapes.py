"""Layouts that published sets have: PASCAL VOC and Cityscapes."""

import os
from collections.abc import Sequence

from .base import spread
from .image_folder import folders_in
from .mask_folder import pair_files
from .masks import Pairs
from .splits import Found, Names, split_of

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
VOC_NAMES = Names(dict(enumerate(VOC_CLASSES)), void=frozenset({255}))
VOC_LISTS = os.path.join("ImageSets", "Segmentation")
VOC_YEARS = ("VOC2007", "VOC2012")  # both together: the training and test images of FRSKD's paper

CITY_VALUES = {  # what labelIds store; labelTrainIds number the classes in this order
    **{7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light"},
    **{20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car"},
    **{27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle"},
}
CITY_VOID = frozenset({*range(34), 255}) - CITY_VALUES.keys()
CITY_NAMES = {
    "labelTrainIds": Names(dict(enumerate(CITY_VALUES.values())), void=frozenset({255})),
    "labelIds": Names(CITY_VALUES, void=CITY_VOID),
}
PROBED = 10  # masks of a split that are read to see whether it has labels


def open_voc(folder: str) -> Found | None:
    """A folder like VOC2012, split by its own lists, or a VOCdevkit of several; None where the folder is neither.

    VOC2007 and VOC2012 together are what FRSKD's paper trains and tests on: the trainval lists of both, and the test
    list of VOC2007. Images of a test list without masks are left out and counted in a note.
    """
    if os.path.isdir(os.path.join(folder, VOC_LISTS)):
        return _voc_of(folder, {split: [("", split)] for split in ("train", "val", "test")})
    years = [year for year in VOC_YEARS if os.path.isdir(os.path.join(folder, year, VOC_LISTS))]
    if len(years) == 1:
        return open_voc(os.path.join(folder, years[0]))
    if years:
        return _voc_of(folder, {"train": [(year, "trainval") for year in years], "test": [(years[0], "test")]})
    return None


def _voc_of(folder: str, lists: dict[str, list[tuple[str, str]]]) -> Found:
    """The splits of a folder, each the lists (folder, title) together."""
    splits, notes = {}, []
    for split, members in lists.items():
        names = [(year, name) for year, title in members for name in _listed(os.path.join(folder, year), title)]
        files = [
            (os.path.join(year, "JPEGImages", f"{name}.jpg"), os.path.join(year, "SegmentationClass", f"{name}.png"))
            for year, name in names
        ]
        if split == "test":
            files = [pair for pair in files if os.path.isfile(os.path.join(folder, pair[1]))]
        if len(files) < len(names):
            missing = len(names) - len(files)
            notes.append(f"{folder}: {missing} of the {len(names)} test images have no mask and are left out")
        if files:
            splits[split] = _existing(folder, [image for image, _ in files], [mask for _, mask in files])
    return Found(splits, tuple(notes), VOC_NAMES)


def _listed(folder: str, title: str) -> list[str]:
    path = os.path.join(folder, VOC_LISTS, f"{title}.txt")
    if not os.path.isfile(path):
        return []
    with open(path, encoding="utf-8") as file:
        return [line.split()[0] for line in file if line.strip()]


def _existing(folder: str, images: Sequence[str], masks: Sequence[str]) -> Pairs:
    for path in (*images, *masks):
        if not os.path.isfile(os.path.join(folder, path)):
            raise ValueError(f"{os.path.join(folder, path)} is on a list of its split, but does not exist")
    return pair_files(folder, images, masks)


def open_cityscapes(folder: str) -> Found | None:
    """A folder with `leftImg8bit` and `gtFine`, its 19 classes numbered in the usual order; None where it is no such.

    Masks are `*_labelTrainIds.png` where every training image has one, else `*_labelIds.png`. A split whose masks are
    void, as those of the published test images, is left out with a note.
    """
    root = os.path.join(folder, "leftImg8bit")
    if not os.path.isdir(root) or not os.path.isdir(os.path.join(folder, "gtFine")):
        return None
    images = {split: _city_images(folder, split) for split in sorted(os.listdir(root)) if split_of(split)}
    stored = "labelTrainIds"
    if not all(os.path.isfile(os.path.join(folder, _city_mask(path, stored))) for path in images.get("train", [])):
        stored = "labelIds"
    splits, notes = {}, []
    for split, paths in images.items():
        masks = [_city_mask(path, stored) for path in paths]
        if split != "train" and not _has_labels(folder, masks, CITY_NAMES[stored]):
            notes.append(f"{folder}: the {split} split has no labels and is left out")
        elif paths:
            splits[split_of(split)] = _existing(folder, paths, masks)
    return Found(splits, tuple(notes), CITY_NAMES[stored])


def _city_images(folder: str, split: str) -> list[str]:
    root = os.path.join("leftImg8bit", split)
    return [
        os.path.join(root, city, name)
        for city in folders_in(os.path.join(folder, root))
        for name in sorted(os.listdir(os.path.join(folder, root, city)))
        if name.endswith("_leftImg8bit.png") and not name.startswith(".")
    ]


def _city_mask(image: str, stored: str) -> str:
    _, split, city, name = image.split(os.sep)
    return os.path.join("gtFine", split, city, name.replace("_leftImg8bit.png", f"_gtFine_{stored}.png"))


def _has_labels(folder: str, masks: Sequence[str], names: Names) -> bool:
    """Whether any of a few masks has a pixel that counts."""
    rows = pair_files(folder, masks, masks)
    there = [i for i in spread(len(masks), PROBED) if os.path.isfile(rows.masks.source(i))]
    return any(rows.values_in(i) - (names.void or set()) for i in there)
