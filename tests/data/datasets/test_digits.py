"""The digits that need no download."""

import numpy as np

from helpers.tasks import CLASSIFICATION
from selfdistill.config.recipe import DataPart
from selfdistill.data import open_splits


def test_digits_need_nothing_and_are_shared_out_evenly_by_class():
    train, val, test, notes = open_splits(DataPart(source="digits"), CLASSIFICATION)
    assert (len(train), len(val), test) == (1438, 359, None)
    assert train.classes == tuple("0123456789") and not train.mirrorable
    held = val.counts() / (val.counts() + train.counts())
    assert ((held - 0.2).abs() < 0.01).all()
    assert len(notes) == 1 and "20 %" in notes[0] and "359 of 1797" in notes[0]


def test_digits_fill_the_whole_range_of_grey():
    train = open_splits(DataPart(source="digits"), CLASSIFICATION).train
    pixels = np.stack([np.asarray(train.image(i)) for i in range(200)])
    assert pixels.dtype == np.uint8 and pixels.shape[1:] == (8, 8)
    assert pixels.min() == 0 and pixels.max() == 255 and len(np.unique(pixels)) == 17
