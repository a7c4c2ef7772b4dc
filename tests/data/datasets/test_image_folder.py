"""Folders of class folders."""

import os

import pytest

from helpers.images import list_names, opened, write_classes, write_image
from selfdistill.data import check


@pytest.mark.parametrize("val", ["val", "valid", "validation", "Val"])
def test_a_folder_with_train_and_val_is_taken_as_it_is(tmp_path, val):
    write_classes(tmp_path / "train", {"cat": 3, "dog": 2})
    write_classes(tmp_path / val, {"cat": 1, "dog": 2})
    train, held, test, notes = opened(tmp_path)
    assert train.classes == held.classes == ("cat", "dog")
    assert train.labels.tolist() == [0, 0, 0, 1, 1] and held.labels.tolist() == [0, 1, 1]
    assert list_names(train) == ["cat/0.png", "cat/1.png", "cat/2.png", "dog/0.png", "dog/1.png"]
    assert test is None and notes == ()


def test_only_images_count_and_the_rest_is_mentioned(tmp_path):
    write_classes(tmp_path, {"cat": 4, "dog": 4})
    write_image(tmp_path / "cat" / "LOUD.JPG")
    write_image(tmp_path / "dog" / "puppies" / "small.png")
    (tmp_path / "cat" / ".DS_Store").write_text("x")
    (tmp_path / "cat" / "._0.png").write_text("x")
    (tmp_path / "dog" / "notes.txt").write_text("x")
    (tmp_path / ".git" / "x").mkdir(parents=True)
    train, val, _, notes = opened(tmp_path)
    assert train.classes == ("cat", "dog") and len(train) + len(val) == 10
    assert {"cat/LOUD.JPG", "puppies/small.png"} <= {*list_names(train), *list_names(val)}
    assert any("2 hidden files and 1 other file" in note for note in notes)
    assert any("1 image in folders below a class folder" in note for note in notes)


def test_links_are_followed_once(tmp_path):
    write_classes(tmp_path / "elsewhere", {"cat": 3})
    write_classes(tmp_path / "data", {"dog": 3})
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere" / "cat", target_is_directory=True)
    (tmp_path / "data" / "dog" / "loop").symlink_to(tmp_path / "data" / "dog", target_is_directory=True)
    train, val, _, _ = opened(tmp_path / "data")
    assert (train.counts() + val.counts()).tolist() == [3, 3]


def test_class_names_in_any_script_agree_between_splits(tmp_path):
    write_classes(tmp_path / "train", {"caf\u00e9": 2, "猫": 2})
    write_classes(tmp_path / "val", {"cafe\u0301": 1, "猫": 1})  # the accent composed by another file system
    train, val, _, _ = opened(tmp_path)
    assert train.classes == ("caf\u00e9", "猫") and val.labels.tolist() == [0, 1]
    assert check(train) == () and train.fingerprint()


def test_classes_that_differ_in_case_are_mentioned(tmp_path):
    write_classes(tmp_path, {"Cat": 2, "cat": 2})
    assert any("'Cat', 'cat'" in note and "case" in note for note in opened(tmp_path).notes)


def test_classes_may_be_called_test(tmp_path):
    write_classes(tmp_path, {"control": 4, "test": 4})
    assert opened(tmp_path).train.classes == ("control", "test")


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ({}, "is empty; it must hold one folder"),
        ({"cat": 0, "dog": 0}, "holds no images"),
        ({".": 3}, "holds 3 images but no class folders"),
        ({"cat": 1}, "has one training image"),
        ({"cat": 5}, "only one class, 'cat'"),
        ({"cat": 5, "dog": 0}, "no training image of the class 'dog'"),
        ({"cat": 5, "dog": 1}, "class 'dog' has one image, .*dog/0.png; holding one out takes two"),
        ({"val/cat": 2, "val/dog": 2}, "no labeled split called train to learn from; it has: val"),
        ({"train/.": 2, "val/cat": 2}, "train holds 2 images but no class folders"),
        ({"train/cat": 2, "train/dog": 2, "val/cat": 1, "val/dgo": 1}, "dgo/0.png has class 'dgo', .* mean 'dog'"),
        ({"val/a": 1, "valid/a": 1, "train/a": 2, "train/b": 2}, "val and valid, which both mean its val split"),
    ],
)
def test_a_folder_that_cannot_be_trained_on_says_why(tmp_path, folders, message):
    write_classes(tmp_path / "set", folders)
    (tmp_path / "set").mkdir(exist_ok=True)
    with pytest.raises(ValueError, match=message) as error:
        opened(tmp_path / "set")
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)


def test_a_class_whose_name_is_no_text_is_named_before_training(tmp_path):
    write_classes(tmp_path / "images", {"a": 2, "b": 2})
    os.rename(tmp_path / "images" / "a", os.fsencode(tmp_path / "images") + b"/m\xf6we")  # Latin-1
    with pytest.raises(
        ValueError, match=r"the name of the class 'm\\udcf6we' of .*images is no text in UTF-8; rename it"
    ):
        opened(tmp_path / "images")
    os.rename(os.fsencode(tmp_path / "images") + b"/m\xf6we", tmp_path / "images" / "möwe")
    assert opened(tmp_path / "images", val_fraction=0.5).train.classes == ("b", "möwe")
