"""PASCAL VOC."""

from pathlib import Path

import pytest

from helpers.mask_files import masks_of, opened_masks, the_mask, write_mask, write_photo
from selfdistill.data.datasets.voc import VOC_CLASSES


def write_voc(mask_folder: Path, lists: dict[str, list[str]], *, without: tuple[str, ...] = ()) -> Path:
    (mask_folder / "ImageSets" / "Segmentation").mkdir(parents=True)
    for title, names in lists.items():
        (mask_folder / "ImageSets" / "Segmentation" / f"{title}.txt").write_text("".join(f"{name}\n" for name in names))
        for name in names:
            write_photo(mask_folder / "JPEGImages" / f"{name}.jpg")
            if name not in without:
                write_mask(mask_folder / "SegmentationClass" / f"{name}.png", [[0, 20, 255], [15, 1, 0]])
    return mask_folder


def test_voc2012_is_split_by_its_lists(tmp_path):
    lists = {"train": ["b", "a"], "val": ["c"], "trainval": ["a", "b", "c"], "test": ["d"]}
    mask_folder = write_voc(tmp_path / "VOC2012", lists, without=("d",))
    train, val, test, notes = opened_masks(mask_folder)
    assert masks_of(train) == ["b.png", "a.png"] and masks_of(val) == ["c.png"] and test is None
    assert train.classes == VOC_CLASSES and len(VOC_CLASSES) == 21
    assert the_mask(train) == [[0, 20, -100], [15, 1, 0]] and "1 of the 1 test images have no mask" in notes[0]
    assert opened_masks(tmp_path).train.classes == VOC_CLASSES  # one year in a VOCdevkit


def test_a_devkit_of_both_years_is_the_papers_split(tmp_path):
    write_voc(tmp_path / "VOC2007", {"train": ["a"], "val": ["b"], "trainval": ["a", "b"], "test": ["c", "d"]})
    write_voc(tmp_path / "VOC2012", {"train": ["a"], "val": ["e"], "trainval": ["a", "e"], "test": ["f"]})
    train, val, test, notes = opened_masks(tmp_path)
    assert [train.key(i) for i in range(4)] == [
        f"{year}/JPEGImages/{name}.jpg" for year, name in zip(("VOC2007",) * 2 + ("VOC2012",) * 2, "abae", strict=True)
    ]
    assert masks_of(test) == ["c.png", "d.png"] and val is None and "VOC2007" in test.name(0)
    (tmp_path / "VOC2012" / "SegmentationClass" / "e.png").unlink()
    with pytest.raises(ValueError, match="SegmentationClass/e.png is on a list of its split, but does not exist"):
        opened_masks(tmp_path)
