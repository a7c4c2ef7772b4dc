"""Masks on disk hold what a segmenter said."""

import numpy as np
import pytest
import torch

from selfdistill.data.datasets.image_io import read_image
from selfdistill.data.datasets.masks import read_mask_values
from selfdistill.data.mask_writer import write_mask

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def read(path):
    return torch.from_numpy(read_mask_values(read_image(str(path)), {}).astype(np.int64))


def test_a_mask_is_read_back_with_the_values_and_colours_it_was_written_with(tmp_path):
    values = torch.tensor([[7, 0, 255], [3, 3, 7]])
    write_mask(tmp_path / "m.png", values, {0: RED, 3: GREEN, 7: BLUE})
    mask = read_image(str(tmp_path / "m.png"))
    assert mask.mode == "P" and torch.equal(read(tmp_path / "m.png"), values)
    assert np.asarray(mask.convert("RGB"))[0, :2].tolist() == [list(BLUE), list(RED)]
    write_mask(tmp_path / "byte.png", values.to(torch.uint8), {})
    assert torch.equal(read(tmp_path / "byte.png"), values)


@pytest.mark.parametrize("largest", [256, 40_000, 65_535])
def test_values_beyond_a_byte_are_stored_in_sixteen_bits(tmp_path, largest):
    values = torch.tensor([[0, largest], [1, 255]])
    write_mask(tmp_path / "m.png", values, {0: RED, 1: GREEN})
    assert torch.equal(read(tmp_path / "m.png"), values)


def test_masks_of_one_set_are_stored_alike_whatever_classes_one_image_shows(tmp_path):
    write_mask(tmp_path / "m.png", torch.zeros(2, 2, dtype=torch.int64), {0: RED, 1000: GREEN})
    assert read_image(str(tmp_path / "m.png")).mode.startswith("I")
