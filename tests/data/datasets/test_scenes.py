"""The built-in scenes of scanned digits."""

import hashlib

import numpy as np
import pytest
from scipy import ndimage

from helpers.tasks import CLASSIFICATION, SEGMENTATION
from selfdistill.config.recipe import DataPart
from selfdistill.data import MaskDataset, Splits, check, open_splits
from selfdistill.data.datasets import scenes
from selfdistill.data.datasets.scenes import CLASSES, CONTRAST, SHARES, Scenes, load_digits_of_split

BRIGHTNESS = (0.3, 0.6, 0.1)  # of red, green, blue


@pytest.fixture(scope="module")
def splits() -> Splits:
    return open_splits(DataPart(source="scenes"), SEGMENTATION)


def masks(rows: MaskDataset, most: int = 80) -> np.ndarray:
    return np.stack([rows.mask_values(i) for i in range(most)])


@pytest.mark.slow
def test_scenes_need_nothing_and_have_their_own_splits(splits):
    train, val, test, notes = splits
    assert (len(train), len(val), len(test)) == (400, 80, 120) and notes == ()
    assert train.classes == CLASSES == ("ground", *(f"digit {k}" for k in range(10))) and train.values == (*range(11),)
    assert not train.mirrorable and (train.image(0).size, train.image(0).mode) == ((64, 64), "RGB")
    assert check(val) == () and train.mask(0).shape == (64, 64)


def test_no_digit_is_in_two_splits():
    scans = {split: load_digits_of_split(split)[0] for split in SHARES}
    numbers = {split: len(each) for split, each in scans.items()}
    assert sum(numbers.values()) == 1797 and numbers["train"] == 1078
    whole = np.concatenate(list(scans.values()))
    assert len(np.unique(whole, axis=0)) == 1797  # the scans differ, so that equal ones would be the same digit


def test_a_scene_is_the_same_on_every_machine(splits):
    digest = hashlib.sha256()
    for i in (0, 7):
        digest.update(splits.train.image(i).tobytes() + splits.train.mask_values(i).tobytes())
    assert digest.hexdigest()[:16] == "00d26f9ff2fe243b"


def test_a_scene_depends_on_its_number_alone(splits):
    again = Scenes("train")
    assert again[5][0].tobytes() == splits.train.image(5).tobytes()
    assert splits.train.image(5).tobytes() != splits.train.image(6).tobytes()
    assert splits.train.image(5).tobytes() != splits.test.image(5).tobytes()


@pytest.mark.slow
def test_every_digit_is_there_and_most_of_a_scene_is_ground(splits):
    for rows in splits[:3]:
        values = masks(rows)
        assert set(np.unique(values)) == {*range(11), 255}
        shares = np.bincount(values.ravel(), minlength=256) / values.size
        assert 0.7 < shares[0] < 0.85 and shares[1:11].min() > 0.004 and 0.01 < shares[255] < 0.05
        assert min(len(np.unique(each)) for each in values) >= 2  # ground and one digit at least


def test_a_rim_of_one_pixel_parts_about_half_of_the_digits_from_the_ground(splits):
    rimmed = []
    for values in masks(splits.val):
        parts, count = ndimage.label((values > 0) & (values < 255), np.ones((3, 3)))
        for part in range(1, count + 1):
            around = ndimage.binary_dilation(parts == part, np.ones((3, 3))) & (parts != part)
            assert set(np.unique(values[around])) in ({0}, {255})  # a rim has no gap
            rimmed.append(values[around][0] == 255)
    assert 0.3 < np.mean(rimmed) < 0.7


def test_ink_can_be_told_from_the_ground(splits):
    rows = splits.val
    for i in range(20):
        pixels, values = np.asarray(rows.image(i)).astype(int), rows.mask_values(i)
        ground = np.median(pixels[values == 0] @ BRIGHTNESS)
        parts, count = ndimage.label((values > 0) & (values < 255), np.ones((3, 3)))
        for part in range(1, count + 1):
            if (parts == part).sum() > 20:
                assert np.median(pixels[parts == part] @ BRIGHTNESS) - ground > 0.8 * CONTRAST


def test_scenes_are_for_segmentation():
    with pytest.raises(ValueError, match="scenes has a label for every pixel.*set task=segmentation"):
        open_splits(DataPart(source="scenes"), CLASSIFICATION)
    with pytest.raises(ValueError, match="did you mean 'scenes"):
        open_splits(DataPart(source="scene"), SEGMENTATION)


def test_scenes_of_digits_say_which_digits_they_show(monkeypatch):
    monkeypatch.setattr(scenes, "DIGIT_SCENES", {"train": 30, "val": 5})
    train = scenes.open_digit_scenes().splits["train"]
    masks = Scenes("train", scenes.FOR_DIGITS)
    for i in range(30):
        shown = set(np.unique(np.asarray(masks[i][1]))) & set(range(1, 11))
        assert train.find_classes(i) == sorted(int(value) - 1 for value in shown) != []
        assert train.image(i).size == (32, 32) and train.image(i).mode == "RGB"
    assert train.classes == tuple(map(str, range(10))) and not train.mirrorable
    digest = hashlib.sha256(b"".join(train.image(i).tobytes() for i in range(30))).hexdigest()
    assert digest[:16] == "680704bec82dd108"  # on every machine
