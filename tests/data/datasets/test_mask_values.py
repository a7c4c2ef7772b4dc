"""What the pixels of a mask store."""

import numpy as np
import pytest
from PIL import Image

from helpers.mask_files import BLUE, RED, VALUES, opened_masks, write_photo
from selfdistill.data.datasets.mask_values import choose_distinct_colors, read_mask_values


@pytest.mark.parametrize(
    ("pixels", "mode"),
    [
        (np.array(VALUES, np.uint8), "L"),
        (np.array(VALUES, np.uint8), "P"),
        (np.array(VALUES, np.uint16), "I;16"),
        (np.array(VALUES, np.int32), "I"),
        (np.repeat(np.array(VALUES, np.uint8)[..., None], 3, axis=2), "RGB"),
    ],
)
def test_masks_are_read_by_their_numbers_in_every_mode(pixels, mode):
    mask = Image.fromarray(pixels)
    if mode == "P":
        mask.putpalette([7, 7, 7, 0, 0, 0, 9, 9, 9])  # neither ascending nor in the order of the values
    assert mask.mode == mode and read_mask_values(mask, {}).tolist() == VALUES


def test_a_mask_of_single_bits_holds_0_and_1():
    assert read_mask_values(Image.fromarray(np.array([[True, False]])), {}).tolist() == [[1, 0]]


def test_colours_are_read_by_a_palette():
    colours = {0: (0, 0, 0), 1: RED, 5: BLUE}
    pixels = np.array([[RED, BLUE], [(0, 0, 0), RED]], dtype=np.uint8)
    assert read_mask_values(Image.fromarray(pixels), colours).tolist() == [[1, 5], [0, 1]]
    assert read_mask_values(Image.fromarray(pixels).convert("RGBA"), colours).tolist() == [[1, 5], [0, 1]]
    pixels[1, 1] = (0, 3, 250)
    with pytest.raises(ValueError, match=r"holds the color \(0, 3, 250\), .* nearest in it is \(0, 0, 255\)"):
        read_mask_values(Image.fromarray(pixels), colours)
    with pytest.raises(ValueError, match="is in color; name what its colors mean with data.palette"):
        read_mask_values(Image.fromarray(pixels), {})


def test_a_palette_of_greys_reads_grey_masks():
    mask = Image.fromarray(np.array([[0, 255]], dtype=np.uint8))
    assert read_mask_values(mask, {0: (255, 255, 255), 1: (0, 0, 0)}).tolist() == [[1, 0]]
    assert read_mask_values(mask, {0: (255, 0, 255), 1: (0, 0, 0)}).tolist() == [[0, 255]]


def test_a_jpeg_is_no_mask(mask_folder):
    write_photo(mask_folder / "masks" / "5.jpg", size=(3, 2))
    write_photo(mask_folder / "images" / "5.png", size=(3, 2))
    with pytest.raises(ValueError, match=r"masks/5.jpg is a JPEG, whose compression changes values"):
        opened_masks(mask_folder)


@pytest.mark.parametrize("count", [1, 21, 150, 300])
def test_default_colours_differ(count):
    colours = np.array(choose_distinct_colors(count))
    distance = np.abs(colours[:, None] - colours).max(axis=2) + 999 * np.eye(count)
    assert len(colours) == count and distance.min() >= (51 if count <= 214 else 42)
    for plain in ((0, 0, 0), (255, 255, 255)):
        assert np.abs(colours - plain).max(axis=1).min() >= (51 if count <= 214 else 42)
