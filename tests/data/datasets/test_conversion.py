"""Stored images become what networks and people are shown."""

import numpy as np
import pytest
import torch
from PIL import Image

from selfdistill.config.recipe import DataPart
from selfdistill.data.datasets.bands import Bands
from selfdistill.data.datasets.conversion import PixelFormat, convert_channels, scale_values, to_8_bits

RAMP = np.array([[27_000, 28_000, 31_000, 0], [65_535, 29_000, 30_000, 27_500]], np.uint16)


def test_values_of_a_range_lie_between_0_and_1_and_others_at_its_ends():
    scaled = scale_values(Image.fromarray(RAMP), 1, (27_000.0, 31_000.0))
    assert scaled.dtype == torch.float32
    assert scaled[0].tolist() == [[0, 0.25, 1, 0], [1, 0.5, 0.75, 0.125]]
    assert torch.equal(scale_values(Image.fromarray(RAMP), 3, (27_000.0, 31_000.0)), scaled.expand(3, -1, -1))


def test_all_values_of_16_bits_stay_apart():
    every = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    for low, high in ((0.0, 65_535.0), (27_000.0, 31_000.0)):
        scaled = scale_values(Image.fromarray(every), 1, (low, high))
        assert len(scaled.unique()) == high - low + 1


@pytest.mark.parametrize(("dtype", "offset"), [("float32", 0.0), ("float64", 1e9), ("int64", 2.0**30)])
def test_wide_values_are_scaled_before_they_are_rounded(dtype, offset):
    values = (np.arange(8).reshape(2, 2, 2) + offset).astype(dtype)
    scaled = scale_values(Bands(values), 2, (offset, offset + 8))
    assert torch.equal(scaled, torch.tensor([[[0.0, 0.25], [0.5, 0.75]], [[0.125, 0.375], [0.625, 0.875]]]))


def test_nan_is_low_and_infinities_are_the_ends():
    values = np.array([[np.nan, np.inf, -np.inf, -3.0]], np.float32)
    assert scale_values(Image.fromarray(values), 1, (-4.0, 0.0)).flatten().tolist() == [0, 1, 0, 0.25]


def test_each_channel_has_its_range():
    values = np.stack([np.full((2, 2), 5.0), np.full((2, 2), -20.0)], axis=2)
    assert scale_values(Bands(values), 2, [(0.0, 10.0), (-40.0, 40.0)])[:, 0, 0].tolist() == [0.5, 0.25]


def test_colors_become_gray_by_luma_and_alpha_is_dropped():
    values = np.array([[[100, 200, 400, 7]]], np.uint16)
    assert scale_values(Bands(values), 1, (0.0, 1000.0)).item() == pytest.approx(0.0299 + 0.1174 + 0.0456)
    assert scale_values(Bands(values), 3, (0.0, 1000.0)).flatten().tolist() == pytest.approx([0.1, 0.2, 0.4])


@pytest.mark.parametrize(
    ("shape", "channels", "message"),
    [
        ((4, 4, 12), 6, "it has 12 channels, and data.channels=6"),
        ((12, 32, 32), 12, r"its array has the shape \(12, 32, 32\), with 12 first; save it as \(h, w, c\)"),
    ],
)
def test_other_channels_are_refused(shape, channels, message):
    with pytest.raises(ValueError, match=message):
        scale_values(Bands(np.zeros(shape)), channels, (0.0, 1.0))


def test_colors_of_16_bits_are_reduced_to_their_upper_half():
    values = np.array([[[255, 256, 65_535]]], np.uint16)
    assert convert_channels(Bands(values, "RGB;16"), 3).getpixel((0, 0)) == (0, 1, 255)
    with pytest.raises(ValueError, match=r"mode float32 x 3 has values of unknown range; set data.gray_range"):
        convert_channels(Bands(values.astype(np.float32)), 3)
    assert convert_channels(Bands(values.astype(np.float32)), 3, (0.0, 510.0)).getpixel((0, 0)) == (128, 128, 255)


def test_images_are_shown_from_their_own_darkest_to_their_brightest_values():
    values = np.linspace(27_000, 31_000, 10_000).reshape(100, 100).astype(np.uint16)
    values[0, 0] = 65_535  # a hot pixel does not matter
    shown = np.asarray(to_8_bits(Image.fromarray(values), 1))
    assert (shown.min(), shown.max()) == (0, 255) and abs(float(shown.mean()) - 127.5) < 2
    bands = np.stack([values * scale for scale in (1.0, -5.0, 0.01, 7.0)], axis=2)
    colors = np.asarray(to_8_bits(Bands(bands), 3)).astype(int)
    assert colors.shape == (100, 100, 3) and np.abs(colors[50, 50] - 127).max() <= 2
    assert (colors[2, :, 0] < 10).all() and (colors[2, :, 1] > 245).all()
    flat = to_8_bits(Image.fromarray(np.full((4, 4), np.nan, np.float32)), 3)
    assert flat.mode == "RGB" and flat.getextrema() == ((0, 0),) * 3


def test_augmentations_of_colors_say_what_they_need():
    pixels = PixelFormat.of(DataPart(channels=1, value_range=(0.0, 9.0)))
    assert pixels.dtype == torch.float32
    with pytest.raises(ValueError, match="augment=colour works on images of 8 bits.*data.gray_range=LOW,HIGH"):
        pixels.refuse_color_change("colour")
    with pytest.raises(ValueError, match="augment=colour works on 1 or 3 channels, not on 12"):
        PixelFormat(12, value_range=[(0.0, 9.0)] * 12).refuse_color_change("colour")
    PixelFormat(3).refuse_color_change("colour")
