"""What is held out, limited and scored on another source."""

from pathlib import Path

import pytest
import torch

from helpers.images import list_names, opened, write_classes
from helpers.mask_files import masks_of, opened_masks
from helpers.tasks import CLASSIFICATION
from selfdistill.config.recipe import DataPart
from selfdistill.data import check, open_one_split, open_splits
from selfdistill.data.datasets.base import Subset


def test_a_test_split_is_no_validation_split(tmp_path):
    write_classes(tmp_path / "train", {"cat": 5, "dog": 5})
    write_classes(tmp_path / "test", {"cat": 1, "dog": 2})
    train, val, test, notes = opened(tmp_path)
    assert (len(train), val, len(test)) == (10, None, 3) and "val_fraction" in notes[0]
    train, val, test, notes = opened(tmp_path, val_fraction=0.4)
    assert (len(train), len(val), len(test)) == (6, 4, 3) and "40 %" in notes[0]
    train, val, test, notes = opened(tmp_path, val="test")
    assert (len(train), len(val), test) == (10, 3, None)


def test_one_folder_is_split_by_class_with_a_fixed_seed(tmp_path):
    write_classes(tmp_path, {"a": 10, "b": 20, "c": 2})
    train, val, _, notes = opened(tmp_path)
    assert val.counts().tolist() == [2, 4, 1] and train.counts().tolist() == [8, 16, 1]
    assert not set(list_names(train)) & set(list_names(val)) and "20 %" in notes[0]
    assert list_names(opened(tmp_path).val) == list_names(val)
    assert list_names(opened(tmp_path, split_seed=1).val) != list_names(val)
    assert opened(tmp_path, val_fraction=0.5).val.counts().tolist() == [5, 10, 1]
    train, val, test, notes = opened(tmp_path, val_fraction=0)
    assert (len(train), val, test) == (32, None, None) and "holds out no validation image" in notes[0]


def test_val_may_be_another_folder_that_lacks_a_class(tmp_path):
    write_classes(tmp_path / "mine", {"cat": 3, "dog": 3, "emu": 3})
    write_classes(tmp_path / "other", {"emu": 1, "dog": 1})
    train, val, _, notes = opened(tmp_path / "mine", val=str(tmp_path / "other"))
    assert len(train) == 9 and val.classes == train.classes and val.labels.tolist() == [1, 2]
    assert "none of the 2 images from" in check(val)[0] and "'cat'" in check(val)[0]


def test_one_image_is_called_the_only_one(tmp_path):
    write_classes(tmp_path / "train", {"cat": 2, "dog": 2})
    write_classes(tmp_path / "val", {"cat": 1})
    (note,) = check(opened(tmp_path).val)
    assert note.startswith("the only image, ") and note.endswith("cat/0.png, lacks the class 'dog'")


def test_limit_keeps_classes_in_balance(tmp_path):
    write_classes(tmp_path / "train", {"a": 6, "b": 2, "c": 6})
    write_classes(tmp_path / "val", {"a": 1, "b": 1, "c": 1})
    splits = opened(tmp_path, limit=8)
    assert splits.train.counts().tolist() == [3, 2, 3] and len(splits.val) == 3
    assert list_names(splits.train)[:3] == ["a/0.png", "a/1.png", "a/2.png"]
    with pytest.raises(ValueError, match="limit=2 leaves classes without"):
        opened(tmp_path, limit=2)


def test_settings_without_effect_are_refused(tmp_path):
    write_classes(tmp_path / "train", {"cat": 2, "dog": 2})
    write_classes(tmp_path / "val", {"cat": 2, "dog": 2})
    with pytest.raises(ValueError, match="val_fraction=0.5 has no effect beside the validation split"):
        opened(tmp_path, val_fraction=0.5)
    with pytest.raises(ValueError, match="val_fraction=0.5 has no effect beside val="):
        opened(tmp_path, val="val", val_fraction=0.5)
    with pytest.raises(ValueError, match="image_column=x has no effect"):
        opened(tmp_path, image_column="x")
    with pytest.raises(ValueError, match="data.val=test is no validation split of .*; it has val beside train"):
        opened(tmp_path, val="test")


def test_another_source_is_scored_by_the_classes_of_a_trained_network(tmp_path):
    write_classes(tmp_path / "test", {"dog": 1, "cat": 2})
    rows, notes = open_one_split(DataPart(), str(tmp_path), ["cat", "cow", "dog"], CLASSIFICATION)
    assert notes == ()
    assert rows.classes == ("cat", "cow", "dog") and rows.labels.tolist() == [0, 0, 2]


def test_a_subset_names_the_files_of_the_whole(tmp_path):
    splits = opened(write_classes(tmp_path, {"cat": 5, "dog": 5}), val_fraction=0.4, limit=4)
    for rows in (splits.train, splits.val):
        for i in range(len(rows)):
            assert f"/{rows.classes[rows.labels[i]]}/" in rows.name(i) and Path(rows.name(i)).exists()
    assert torch.equal(splits.train.counts(), torch.tensor([2, 2]))


def test_a_download_of_what_lies_here_is_refused():
    with pytest.raises(ValueError, match="download=true has no effect on digits"):
        open_splits(DataPart(source="digits", download=True), CLASSIFICATION)


def test_holding_out_and_limiting_share_images_not_classes(mask_folder):
    train, val, _, _ = opened_masks(mask_folder, val_fraction=0.4, limit=2)
    assert (len(train), len(val)) == (2, 2) and isinstance(train, Subset)
    assert not set(masks_of(train)) & set(masks_of(val)) and masks_of(train) == sorted(masks_of(train))
    assert masks_of(opened_masks(mask_folder, val_fraction=0.4).val) == masks_of(val)
    assert (
        len({tuple(masks_of(opened_masks(mask_folder, val_fraction=0.4, split_seed=seed).val)) for seed in range(5)})
        > 1
    )
    assert train.name(0) == train.dataset.name(int(train.indices[0]))


def test_numbers_that_stand_for_the_names_of_another_set_are_mentioned():
    names = [f"animal {k}" for k in range(10)]
    _, notes = open_one_split(DataPart(), "digits", names, CLASSIFICATION)
    assert "digits has numbers for classes: 0 means 'animal 0', 1 means 'animal 1'" in notes[-1]
    assert open_one_split(DataPart(), "digits", [str(k) for k in range(10)], CLASSIFICATION).notes == ()


def test_a_test_split_is_carved_once_and_apart_from_what_is_scored_while_training(tmp_path):
    write_classes(tmp_path, {"a": 10, "b": 20, "c": 2, "d": 3})
    without = opened(tmp_path)
    train, val, test, notes = opened(tmp_path, test_fraction=0.3)
    assert list_names(val) == list_names(without.val) and without.test is None
    assert test.counts().tolist() == [3, 6, 0, 1] and train.counts().tolist() == [5, 10, 1, 1]
    names = [list_names(rows) for rows in (train, val, test)]
    assert sorted(sum(names, [])) == sorted([*list_names(without.train), *list_names(val)])
    assert "30 % of each class of" in notes[1] and "10 of 35 images" in notes[1]
    assert list_names(opened(tmp_path, test_fraction=0.3).test) == names[2]
    assert list_names(opened(tmp_path, test_fraction=0.3, split_seed=1).test) != names[2]


def test_a_test_fraction_that_cannot_be_is_refused(tmp_path):
    write_classes(tmp_path / "one/train", {"a": 2, "b": 2})
    write_classes(tmp_path / "one/test", {"a": 2, "b": 2})
    write_classes(tmp_path / "two", {"a": 2, "b": 2})
    with pytest.raises(ValueError, match="data.test_fraction=0.5 has no effect beside the test split of"):
        opened(tmp_path / "one", test_fraction=0.5)
    assert len(opened(tmp_path / "one", test_fraction=0.5, val="test").test) == 2
    with pytest.raises(ValueError, match="data.test_fraction=0.9 leaves nothing to train on"):
        opened(tmp_path / "two", test_fraction=0.9)
    with pytest.raises(ValueError, match="data.test_fraction=0.1 takes no image of a class that has one"):
        opened(tmp_path / "two", test_fraction=0.1)


def test_a_smaller_fraction_is_a_part_of_a_larger_one(tmp_path):
    write_classes(tmp_path, {"a": 10, "b": 20, "c": 2})
    whole = opened(tmp_path)
    fractions = [opened(tmp_path, fraction=fraction) for fraction in (0.1, 0.25, 0.5, 1)]
    assert [splits.train.counts().tolist() for splits in fractions] == [[1, 2, 1], [2, 4, 1], [4, 8, 1], [8, 16, 1]]
    assert all(list_names(splits.val) == list_names(whole.val) for splits in fractions)
    names = [{*list_names(splits.train)} for splits in fractions]
    assert names[0] < names[1] < names[2] < names[3] == {*list_names(whole.train)}
    assert "data.fraction=0.25 trains on 7 of 25 images" in fractions[1].notes
    assert {*list_names(opened(tmp_path, fraction=0.25, split_seed=3).train)} != names[1]


def test_a_fraction_of_images_with_masks_is_one_of_all_images(mask_folder):
    whole, part = opened_masks(mask_folder), opened_masks(mask_folder, fraction=0.5)
    assert len(part.train) == round(len(whole.train) / 2) and {*masks_of(part.train)} < {*masks_of(whole.train)}
    assert len(opened_masks(mask_folder, test_fraction=0.2).test) == 1
