"""PASCAL VOC: the folders and lists of one year, or of the two years in FRSKD's paper."""

import os

from .label_map import LabelMap
from .mask_folder import open_listed_files
from .palettes import VOC_CLASSES
from .splits import DatasetSplits

VOC_LABEL_MAP = LabelMap(dict(enumerate(VOC_CLASSES)), ignored=frozenset({255}))
VOC_LISTS = os.path.join("ImageSets", "Segmentation")
VOC_YEARS = ("VOC2007", "VOC2012")  # both together: the training and test images of FRSKD's paper


def open_voc(folder: str) -> DatasetSplits | None:
    """Opens a folder like VOC2012 by its own lists, or a VOCdevkit of several; None for another folder.

    VOC2007 and VOC2012 together give the data of FRSKD's paper: the trainval lists of both for training, and the test
    list of VOC2007. Test images without masks are left out and counted in a note.
    """
    if os.path.isdir(os.path.join(folder, VOC_LISTS)):
        return _open_lists(folder, {split: [("", split)] for split in ("train", "val", "test")})
    years = [year for year in VOC_YEARS if os.path.isdir(os.path.join(folder, year, VOC_LISTS))]
    if len(years) == 1:
        return open_voc(os.path.join(folder, years[0]))
    if years:
        return _open_lists(folder, {"train": [(year, "trainval") for year in years], "test": [(years[0], "test")]})
    return None


def _open_lists(folder: str, lists: dict[str, list[tuple[str, str]]]) -> DatasetSplits:
    """Opens the splits of a folder; each split joins some lists (folder, title)."""
    splits, notes = {}, []
    for split, members in lists.items():
        names = [(year, name) for year, title in members for name in _read_list(os.path.join(folder, year), title)]
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
            splits[split] = open_listed_files(folder, [image for image, _ in files], [mask for _, mask in files])
    return DatasetSplits(splits, tuple(notes), VOC_LABEL_MAP)


def _read_list(folder: str, title: str) -> list[str]:
    path = os.path.join(folder, VOC_LISTS, f"{title}.txt")
    if not os.path.isfile(path):
        return []
    with open(path, encoding="utf-8") as file:
        return [line.split()[0] for line in file if line.strip()]
