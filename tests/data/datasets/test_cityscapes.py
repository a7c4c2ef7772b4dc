"""Cityscapes."""

from pathlib import Path

from helpers.mask_files import opened_masks, the_mask, write_mask, write_photo
from selfdistill.data.datasets.cityscapes import CITY_VALUES


def write_city(mask_folder: Path, split: str, values: list, stored: str = "labelIds") -> None:
    for name in ("aachen_0", "aachen_1"):
        write_photo(mask_folder / "leftImg8bit" / split / "aachen" / f"{name}_leftImg8bit.png")
        write_mask(mask_folder / "gtFine" / split / "aachen" / f"{name}_gtFine_{stored}.png", values)


def test_cityscapes_has_19_classes_whichever_masks_there_are(tmp_path):
    write_city(tmp_path, "train", [[7, 33, 0], [26, 8, 255]])
    write_city(tmp_path, "val", [[7, 33, 0], [26, 8, 255]])
    write_city(tmp_path, "test", [[0, 1, 3], [3, 3, 3]])
    train, val, test, notes = opened_masks(tmp_path)
    assert train.classes == tuple(CITY_VALUES.values()) and len(train.classes) == 19 and train.classes[-1] == "bicycle"
    assert the_mask(train) == the_mask(val) == [[0, 18, -100], [13, 1, -100]] and train.values[:3] == (7, 8, 11)
    assert test is None and "the test split has no labels" in notes[0]
    again = opened_masks(tmp_path, **train.settings())
    labels = train.label_map
    assert (again.train.label_map.classes, again.train.label_map.index) == (labels.classes, labels.index)
    assert again.train.label_map.palette == labels.palette == {}
    for split in ("train", "val"):
        write_city(tmp_path, split, [[0, 18, 255], [13, 1, 255]], "labelTrainIds")
    train, *_ = opened_masks(tmp_path)
    assert the_mask(train) == [[0, 18, -100], [13, 1, -100]] and "labelTrainIds" in train.mask_name(0)
