"""Masks and overlays on disk hold what a segmenter said."""

import numpy as np
import pytest
import torch
from PIL import Image

from selfdistill.data.datasets.image_io import read_image
from selfdistill.data.datasets.masks import read_mask_values
from selfdistill.data.mask_writer import draw_overlay, write_mask

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


def test_an_overlay_blends_inside_and_is_pure_where_another_class_begins():
    classes = torch.zeros(5, 6, dtype=torch.int64)
    classes[:, 3:] = 1
    pixels = np.asarray(draw_overlay(Image.new("RGB", (6, 5), (100, 100, 100)), classes, [RED, BLUE], opacity=0.25))
    inside, border = [139, 75, 75], list(RED)  # 100 + (255 - 100) / 4 and 100 - 100 / 4
    assert pixels[2].tolist() == [inside, inside, border, list(BLUE), [75, 75, 139], [75, 75, 139]]


def test_an_overlay_leaves_pixels_without_a_class_as_they_are():
    classes = torch.full((3, 3), -100)
    picture = Image.fromarray(np.arange(27, dtype=np.uint8).reshape(3, 3, 3))
    assert np.array_equal(np.asarray(draw_overlay(picture, classes, [RED])), np.asarray(picture))


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "I;16", "CMYK", "1"])
def test_pictures_of_every_mode_can_be_painted_over(mode):
    image = (
        Image.new("RGB", (4, 3), (50, 50, 50)).convert("L").convert(mode) if mode != "I;16" else Image.new(mode, (4, 3))
    )
    shown = draw_overlay(image, torch.zeros(3, 4, dtype=torch.int64), [GREEN], opacity=1.0)
    assert shown.mode == "RGB" and shown.getpixel((0, 0)) == GREEN
