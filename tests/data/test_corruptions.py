"""Corruptions, against slow loops written from their definitions.

They were also compared once with the package imagecorruptions 1.1.2 on a photograph of 224 x 160 pixels. Blurs, motion
at a given angle, brightness, contrast, pixelation and JPEG agree to one level of 255 (three at the rim of the largest
disk; its pixelation to 0.4 enlarges by nearest neighbor); noises have the same mean and deviation.
"""

import colorsys
import io
import math

import numpy as np
import pytest
from PIL import Image

from selfdistill.data import corruptions
from selfdistill.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt

SIZES = [(12, 9), (70, 66)]  # small and large


def picture(height, width, channels=3):
    """Smooth, with edges, and with values of 0 and 255."""
    y, x = np.mgrid[:height, :width]
    layers = [(127 + 120 * np.sin(x / (3 + k) + y / 7)) * (x + y > 6 + k) for k in range(channels)]
    values = np.stack(layers, axis=2).clip(0, 255).astype(np.uint8)
    return values if channels > 1 else values[:, :, 0]


def nearest(values, y, x):
    return values[min(max(y, 0), len(values) - 1), min(max(x, 0), len(values[0]) - 1)]


def mirrored(values, y, x):
    def inside(i, n):
        i = abs(i) % (2 * n - 2)
        return min(i, 2 * n - 2 - i)

    return values[inside(y, len(values)), inside(x, len(values[0]))]


def correlate(values, kernel, border):
    reach_y, reach_x = kernel.shape[0] // 2, kernel.shape[1] // 2
    result = np.zeros_like(values)
    for y, x in np.ndindex(*values.shape[:2]):
        for (j, i), weight in np.ndenumerate(kernel):
            if weight:
                result[y, x] += weight * border(values, y + j - reach_y, x + i - reach_x)
    return result


def slow_blur(values, deviation):
    reach = math.floor(4 * deviation + 0.5)
    weights = np.array([math.exp(-(i * i) / (2 * deviation**2)) for i in range(-reach, reach + 1)])
    rows = correlate(values, weights[:, None] / weights.sum(), nearest)
    return correlate(rows, weights[None] / weights.sum(), nearest)


def slow_defocus(values, lens):
    radius, softness = lens
    side = 31
    disk = np.array([[float(math.hypot(y - 15, x - 15) <= radius) for x in range(side)] for y in range(side)])
    width = 5 if radius > 8 else 3
    soft = np.array([math.exp(-((i - width // 2) ** 2) / (2 * softness**2)) for i in range(width)])
    soft /= soft.sum()
    smooth = correlate(disk[:, :, None] / disk.sum(), soft[:, None] * soft[None], mirrored)[:, :, 0]
    return correlate(values, smooth, mirrored)


def slow_motion(values, motion, angle):
    radius, deviation = motion
    weights = [math.exp(-(i * i) / (2 * deviation**2)) for i in range(2 * radius + 1)]
    result = np.zeros_like(values)
    for y, x in np.ndindex(*values.shape[:2]):
        for i, weight in enumerate(weights):
            dy, dx = (math.ceil(i * slope - 0.5) for slope in (math.sin(angle), math.cos(angle)))
            result[y, x] += weight / sum(weights) * nearest(values, y + dy, x + dx)
    return result


def slow_brighten(values, amount):
    result = np.zeros_like(values)
    for y, x in np.ndindex(*values.shape[:2]):
        hue, saturation, value = colorsys.rgb_to_hsv(*values[y, x])
        result[y, x] = colorsys.hsv_to_rgb(hue, saturation, min(value + amount, 1))
    return result


def slow_contrast(values, share):
    means = [sum(values[:, :, c].ravel()) / values[:, :, c].size for c in range(values.shape[2])]
    return np.stack([(values[:, :, c] - means[c]) * share + means[c] for c in range(values.shape[2])], axis=2)


SLOW = {
    "gaussian_blur": slow_blur,
    "defocus_blur": slow_defocus,
    "brightness": slow_brighten,
    "contrast": slow_contrast,
}


@pytest.mark.parametrize("name", SLOW)
def test_what_draws_nothing_is_as_a_slow_loop_has_it(name):
    values = picture(14, 11)
    for strength in (CORRUPTIONS[name].small[-1], CORRUPTIONS[name].large[0]):
        ours = CORRUPTIONS[name].apply(values.astype(np.float32) / 255, strength, None)
        np.testing.assert_allclose(ours, SLOW[name](values / 255, strength), atol=2e-5)


class Angle:
    """Stands in for a generator that draws this angle, in degrees."""

    def __init__(self, degrees):
        self.degrees = degrees

    def uniform(self, low, high):
        assert low <= self.degrees <= high
        return self.degrees


@pytest.mark.parametrize("degrees", [-45, -10, 0, 33])
def test_motion_shifts_along_a_line(degrees):
    values = picture(14, 11)
    ours = corruptions.blur_by_motion(values.astype(np.float32) / 255, (6, 2.0), Angle(degrees))
    np.testing.assert_allclose(ours, slow_motion(values / 255, (6, 2), math.radians(degrees)), atol=2e-5)


def test_noises_have_the_mean_and_the_deviation_of_their_definition():
    gray, generator = np.full((300, 300, 3), 0.4, np.float32), np.random.default_rng(0)
    noise = corruptions.add_gaussian_noise(gray, 0.1, generator) - gray
    assert noise.mean() == pytest.approx(0, abs=1e-3) and noise.std() == pytest.approx(0.1, rel=0.01)
    shot = corruptions.add_shot_noise(gray, 50.0, generator)
    assert shot.mean() == pytest.approx(0.4, rel=0.01) and shot.var() == pytest.approx(0.4 / 50, rel=0.02)
    assert np.abs(shot * 50 - (shot * 50).round()).max() < 1e-9
    impulse = corruptions.add_impulse_noise(gray, 0.09, generator)
    assert [(impulse == value).mean() for value in (0, 1)] == pytest.approx([0.045, 0.045], rel=0.03)
    assert set(np.unique(impulse)) == {0, 1, np.float32(0.4)}


def test_compression_and_pixelation_are_pillows():
    values = picture(70, 66)
    file = io.BytesIO()
    Image.fromarray(values).save(file, "JPEG", quality=18)
    with Image.open(file) as image:
        assert np.array_equal(corrupt(Image.fromarray(values), "jpeg", 2), np.asarray(image))
    small = Image.fromarray(values).resize((16, 17), Image.Resampling.BOX)  # a quarter, rounded down
    assert np.array_equal(corrupt(Image.fromarray(values), "pixelate", 5), small.resize((66, 70), Image.Resampling.BOX))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_harms_more_in_the_end_than_at_first_and_keeps_the_form(name, size):
    clean = picture(*size)
    results = [np.asarray(corrupt(Image.fromarray(clean), name, severity)) for severity in SEVERITIES]
    assert all(result.shape == clean.shape and result.dtype == np.uint8 for result in results)
    harm = [np.square(result.astype(float) - clean).mean() for result in results]
    assert harm[-1] > harm[0]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_gray_stays_gray_and_alpha_stays_as_it_is(name):
    gray = corrupt(Image.fromarray(picture(20, 20, 1)), name, 5)
    assert gray.mode == "L" and gray.size == (20, 20)
    values = picture(20, 20, 4)
    assert np.array_equal(np.asarray(corrupt(Image.fromarray(values), name, 5))[:, :, 3], values[:, :, 3])
    assert corrupt(Image.fromarray(picture(3, 1)), name, 5).size == (1, 3)


def test_a_picture_gets_the_same_noise_wherever_it_stands_and_others_get_other_noise():
    first, second = (Image.new("RGB", (40, 30), color) for color in ((90, 90, 90), (91, 90, 90)))
    noises = [np.asarray(corrupt(image, "gaussian_noise", 3), dtype=int) - 90 for image in (first, second, first)]
    assert np.array_equal(noises[0], noises[2]) and not np.array_equal(noises[0][..., 1:], noises[1][..., 1:])
    severities = [np.asarray(corrupt(first, "impulse_noise", severity)) for severity in (3, 4)]
    assert not np.array_equal(severities[0] == 0, severities[1] == 0)
