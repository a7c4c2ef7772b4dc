"""Folders of images beside folders of their masks."""

from pathlib import Path

import pytest

from helpers.mask_files import VALUES, masks_of, opened_masks, the_mask, write_mask, write_pairs, write_photo
from helpers.tasks import CLASSIFICATION
from selfdistill.config.recipe import DataPart
from selfdistill.data import open_splits


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        ("{}/images", "{}/masks"),
        ("{}/img", "{}/labels"),
        ("images/{}", "masks/{}"),
        ("Images/{}", "Annotations/{}"),
        ("{}", "{}annot"),
        ("{}", "{}_labels"),
    ],
)
def test_splits_lie_in_or_around_the_folders_of_images_and_masks(tmp_path, images, masks):
    for count, split in enumerate(("train", "val", "test"), 2):
        write_pairs(tmp_path / images.format(split), tmp_path / masks.format(split), count)
    train, val, test, notes = opened_masks(tmp_path)
    assert [len(rows) for rows in (train, val, test)] == [2, 3, 4] and notes == ()
    assert the_mask(test, 3) == VALUES and Path(test.name(3)).exists() and Path(test.mask_name(3)).exists()


@pytest.mark.parametrize("end", ["_mask.png", "_L.png", "_label.png", ".tif"])
def test_a_mask_may_be_marked_as_one(tmp_path, end):
    write_pairs(tmp_path / "images" / "a", tmp_path / "masks" / "a", end=end)
    rows = opened_masks(tmp_path).train.dataset
    assert masks_of(rows) == [f"{k}{end}" for k in range(4)] and rows.key(0) == "images/a/0.jpg"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "masks/2.png").unlink(), r"images/2.jpg has no mask of its name in .*masks"),
        (lambda f: [(f / f"images/{k}.jpg").unlink() for k in (1, 3)], r"masks/1.png has no image .*\(and 1 more such"),
        (lambda f: write_photo(f / "images/2.png"), "images holds 2.jpg and 2.png; keep one"),
        (lambda f: write_mask(f / "masks/2_mask.png"), "masks holds 2.png and 2_mask.png; keep one"),
        (lambda f: (f / "masks").rename(f / "other"), "holds no images with masks; .* set task=classification"),
        (lambda f: [path.unlink() for path in f.rglob("*.*")], "has no image with a mask"),
        (lambda f: [path.unlink() for path in f.rglob("[1-4].*")], "has one training image"),
        (lambda f: (f / "masks/2.png").write_bytes(b"PNG"), "masks/2.png cannot be read as an image"),
    ],
)
def test_a_folder_of_pairs_that_does_not_match_says_why(mask_folder, spoil, message):
    spoil(mask_folder)
    with pytest.raises(ValueError, match=message) as error:
        opened_masks(mask_folder)
    assert str(mask_folder) in str(error.value) and "\n" not in str(error.value)


def test_a_split_without_masks_is_left_out(tmp_path):
    write_pairs(tmp_path / "images" / "train", tmp_path / "masks" / "train")
    write_photo(tmp_path / "images" / "test" / "0.jpg")
    (tmp_path / "images" / "train" / "notes.txt").write_text("x")
    train, val, test, notes = opened_masks(tmp_path)
    assert test is None and len(train) + len(val) == 4
    assert "the test split has no masks" in notes[0] + notes[1] and "1 other file," in notes[0] + notes[1]


def test_a_split_without_images_is_left_out(tmp_path):
    write_pairs(tmp_path / "images" / "train", tmp_path / "masks" / "train")
    for name in ("images", "masks"):
        (tmp_path / name / "val").mkdir()
    train, val, _, notes = opened_masks(tmp_path)
    assert (len(train), len(val)) == (3, 1) and f"the val split of {tmp_path} has no images and is left out" in notes


def test_two_folders_for_one_split_are_refused_but_classes_may_be_called_so(tmp_path):
    for split in ("train", "val", "validation"):
        write_pairs(tmp_path / "images" / split, tmp_path / "masks" / split)
    with pytest.raises(ValueError, match="images holds val and validation, which both mean its val split; keep one"):
        opened_masks(tmp_path)
    for name in ("dev", "val", "cat"):
        for number in range(2):
            write_photo(tmp_path / "classes" / name / f"{number}.png")
    assert open_splits(DataPart(source=str(tmp_path / "classes")), CLASSIFICATION).train.classes == (
        "cat",
        "dev",
        "val",
    )


def test_the_task_must_fit_the_folder(mask_folder, tmp_path):
    with pytest.raises(ValueError, match="holds images with masks, not class folders; task=segmentation"):
        open_splits(DataPart(source=str(mask_folder)), CLASSIFICATION)
    for source in ("digits", "torchvision:MNIST"):
        with pytest.raises(ValueError, match=f"{source} has a label for every image.*set data=scenes"):
            opened_masks(source)
    for number in range(4):
        write_photo(tmp_path / "classes" / "images" / f"{number}.png")
        write_photo(tmp_path / "classes" / "labels" / f"{number}x.png")  # two classes with unhappy names
    assert open_splits(DataPart(source=str(tmp_path / "classes")), CLASSIFICATION).train.classes == ("images", "labels")


def test_images_and_masks_match_however_their_accents_are_composed(tmp_path):
    for number in range(3):
        write_photo(tmp_path / "images" / f"b\u00e4r {number}.jpg", number)
        write_mask(tmp_path / "masks" / f"ba\u0308r {number}.png")
    train, val, _, _ = opened_masks(tmp_path)
    assert len(train) + len(val) == 3
