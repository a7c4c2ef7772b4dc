"""Random numbers for whole batches, and the augmentations that draw them: against slow loops, and in the mean."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode, functional

from selfdistill.config.recipe import DataPart
from selfdistill.data.random.keys import branch, derive_keys, normal, to_integers, uniform
from selfdistill.data.transforms import base, batch
from selfdistill.data.transforms.base import Normalization
from selfdistill.data.transforms.batch import (
    Cutout,
    Erasing,
    Flip,
    PaddedCrop,
    ReflectedCrop,
    ResizedCrop,
    Rotation,
    draw_rectangles,
)

EVERY = [PaddedCrop, ReflectedCrop, ResizedCrop, Flip, Rotation, Cutout, Erasing]


def keys(count: int, seed: int = 0) -> Tensor:
    return derive_keys([seed], torch.arange(count))[0]


def noise(count: int, height: int, width: int, channels: int = 3) -> Tensor:
    draw = torch.Generator().manual_seed(7)
    return torch.randint(256, (count, channels, height, width), generator=draw, dtype=torch.uint8)


def splitmix(state: int, number: int) -> int:
    """Output `number`, from 0 on, of SplitMix64 begun at `state`, in Python's unbounded integers."""
    z = (state + (number + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


# the numbers


def test_keys_are_the_outputs_of_splitmix():
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]  # of 1234567
    assert [splitmix(1234567, number) for number in range(4)] == published
    seeds, rows = [1234567, 2**64 - 5, 2**63], torch.tensor([0, 1, 2, 3, 10**6])
    found = derive_keys(seeds, rows)
    assert [[key % 2**64 for key in line] for line in found.tolist()] == [
        [splitmix(seed, row) for row in rows.tolist()] for seed in seeds
    ]
    assert branch(found[0], 7).tolist() == branch(found, torch.tensor(7))[0].tolist()


def test_uniform_numbers_are_the_upper_bits_of_the_keys_outputs():
    given = keys(5)
    expected = [[(splitmix(key, number) >> 40) / 2**24 for key in given.tolist()] for number in range(3)]
    assert uniform(given, 3).dtype == torch.float32 and uniform(given, 3).tolist() == expected


def correlation(one: Tensor, two: Tensor) -> float:
    return torch.corrcoef(torch.stack([one, two]))[0, 1].item()


def test_numbers_are_uniform_and_independent_of_each_other():
    count = 20_000
    found = uniform(keys(count), 3)
    assert found.min() >= 0 and found.max() < 1
    assert found.mean(dim=1).tolist() == pytest.approx([1 / 2] * 3, abs=0.01)
    assert found.var(dim=1).tolist() == pytest.approx([1 / 12] * 3, abs=0.002)
    eighths = torch.histc(found, 8) / found.numel()
    assert eighths.tolist() == pytest.approx([1 / 8] * 8, abs=0.005)
    others = [found[0, 1:], found[1, :-1], uniform(keys(count, seed=1), 1)[0, :-1]]  # next row, number and seed
    others += [uniform(branch(keys(count), place), 1)[0, :-1] for place in (0, 1)]
    for other in others:
        assert abs(correlation(found[0, :-1], other)) < 0.03


def test_whole_numbers_below_a_bound_are_alike_and_never_the_bound():
    nearly = torch.tensor(1 - 2.0**-24)
    assert all(to_integers(nearly, bound) == bound - 1 for bound in range(1, 3000))
    counts = torch.bincount(to_integers(uniform(keys(7000), 1)[0], 7))
    assert counts.tolist() == pytest.approx([1000] * 7, abs=120)


def test_normal_numbers_are_normal():
    found = normal(keys(50), (4, 10, 10))
    assert found.shape == (50, 4, 10, 10) and found.isfinite().all()
    values = found.flatten()
    assert values.mean().item() == pytest.approx(0, abs=0.03) and values.std().item() == pytest.approx(1, abs=0.02)
    assert (values.abs() < 1).float().mean().item() == pytest.approx(math.erf(0.5**0.5), abs=0.01)
    assert abs(correlation(found[0].flatten(), found[1].flatten())) < 0.2 and values.unique().numel() > 19_900


# the augmentations


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_what_becomes_of_an_image_depends_on_it_and_its_key_alone(kind, dtype):
    step, images = kind(), noise(12, 10, 14).to(dtype)
    whole = step(images, keys(12))
    assert whole.shape == images.shape and whole.dtype == dtype and not torch.equal(whole, images)
    for n in range(12):
        assert torch.equal(step(images[n : n + 1], keys(12)[n : n + 1])[0], whole[n])
    order = torch.randperm(12)
    assert torch.equal(step(images[order], keys(12)[order]), whole[order])
    assert torch.equal(images, noise(12, 10, 14).to(dtype))  # what was given is left alone


def test_crop_is_a_window_of_the_padded_image_anywhere_alike():
    images, given = noise(2000, 16, 8), keys(2000)
    shown = PaddedCrop()(images, given)
    places = []
    for n, (top, left) in enumerate(uniform(given, 2).T.tolist()):
        top, left = int(top * 5), int(left * 3)  # a margin of 2 above and below, and of 1 on either side
        expected = torch.zeros(3, 20, 10, dtype=torch.uint8)
        expected[:, 2:18, 1:9] = images[n]
        assert torch.equal(shown[n], expected[:, top : top + 16, left : left + 8])
        places.append(3 * top + left)
    counts = torch.bincount(torch.tensor(places), minlength=15)
    assert counts.tolist() == pytest.approx([2000 / 15] * 15, abs=50)


def test_reflect_crop_is_a_window_of_the_mirrored_image():
    images, given = noise(50, 16, 8), keys(50)
    shown = ReflectedCrop()(images, given)
    for n, (top, left) in enumerate(uniform(given, 2).T.tolist()):
        expected = functional.pad(images[n], [1, 2], padding_mode="reflect")  # 1 on either side, 2 above and below
        top, left = int(top * 5), int(left * 3)
        assert torch.equal(shown[n], expected[:, top : top + 16, left : left + 8])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_large_images_are_mirrored_and_normalized_as_small_ones(monkeypatch, memory_format):
    images = torch.randint(256, (5, 3, 40, 60), dtype=torch.uint8).to(memory_format=memory_format)
    keys = derive_keys([3], torch.arange(5))[0]
    normalize = Normalization(DataPart(mean=[0.1, 0.5, 0.7], std=[0.2, 0.3, 0.9])).to(
        torch.device("cpu"), memory_format
    )
    whole = [Flip()(images, keys), normalize(images)]
    monkeypatch.setattr(batch, "LARGE", 0)
    monkeypatch.setattr(base, "CACHED", 1)
    for before, now in zip(whole, [Flip()(images, keys), normalize(images)], strict=True):
        assert torch.equal(before, now) and before.stride() == now.stride()
    assert not torch.equal(whole[0], images) and whole[1].is_contiguous(memory_format=memory_format)
    assert torch.equal(whole[1], (images.float() / 255 - normalize.mean) / normalize.std)


def test_flip_mirrors_half_of_the_images():
    images = noise(1000, 4, 6)
    shown = Flip()(images, keys(1000))
    mirrored = (shown == images.flip(3)).flatten(1).all(dim=1)
    kept = (shown == images).flatten(1).all(dim=1)
    assert (mirrored ^ kept).all() and 440 < mirrored.sum() < 560


def boxes(numbers: Tensor, height: int, width: int) -> tuple[int, int, int, int]:
    """Top, left, height and width of a resized crop, drawn as the paper's code does."""
    tries = zip(numbers[2:12].tolist(), numbers[12:].tolist(), strict=True)
    for share, shape in tries:
        area = height * width * (0.08 + 0.92 * share)
        ratio = math.exp(math.log(3 / 4) + shape * (math.log(4 / 3) - math.log(3 / 4)))
        wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if wide <= width and tall <= height:
            return int(numbers[0] * (height - tall + 1)), int(numbers[1] * (width - wide + 1)), tall, wide
    tall, wide = min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))
    return (height - tall) // 2, (width - wide) // 2, tall, wide


@pytest.mark.parametrize("size", [(16, 16), (12, 40), (40, 12)])
def test_resized_crop_enlarges_a_rectangle_as_torchvision_does(size):
    images, given = noise(60, *size), keys(60)
    shown = ResizedCrop()(images, given)
    drawn = [boxes(numbers, *size) for numbers in uniform(given, 22).T]
    assert len(set(drawn)) > 20
    for n, box in enumerate(drawn):
        expected = functional.resized_crop(images[n].float(), *box, list(size), antialias=False)
        torch.testing.assert_close(shown[n].float(), expected, atol=0.51, rtol=0)


def test_rectangles_have_the_areas_and_shapes_that_are_asked_for():
    tall, wide = draw_rectangles(uniform(keys(3000), 8), (256, 128), area=(0.1, 0.5), shape=3.0)
    assert tall.shape == (4, 3000)
    areas, shapes = (tall * wide / (256 * 128)).flatten(), (wide / tall).log().flatten() / math.log(3)
    for values, low, high in ((areas, 0.1, 0.5), (shapes, -1, 1)):
        assert [values.min().item(), values.max().item()] == pytest.approx([low, high], abs=0.02)
        quarters = torch.histc(values.clamp(low, high), 4, min=low, max=high) / len(values)
        assert quarters.tolist() == pytest.approx([0.25] * 4, abs=0.02)


@pytest.mark.parametrize("size", [(16, 16), (11, 20)])
def test_rotation_turns_about_the_middle_as_torchvision_does(size):
    images, given = noise(30, *size).float(), keys(30)
    shown = Rotation()(images, given)
    angles = [15 * (2 * number - 1) for number in uniform(given, 1)[0].tolist()]
    assert min(angles) < -12 and max(angles) > 12
    for n, angle in enumerate(angles):
        expected = functional.rotate(images[n], -angle, InterpolationMode.BILINEAR)
        torch.testing.assert_close(shown[n], expected, atol=0.05, rtol=0)
    rounded = Rotation()(images.to(torch.uint8), given)
    assert (rounded.float() - shown).abs().max() <= 0.5


def test_cutout_clears_the_square_around_a_pixel():
    images, given = noise(200, 12, 9).float() + 1, keys(200)
    shown = Cutout()(images, given)
    for n, (y, x) in enumerate(uniform(given, 2).T.tolist()):
        expected, top, left = images[n].clone(), int(y * 12) - 2, int(x * 9) - 2
        expected[:, max(top, 0) : top + 4, max(left, 0) : left + 4] = 0
        assert torch.equal(shown[n], expected)


def test_erasing_leaves_the_rest_of_the_image_and_noise_differs_between_images():
    images = torch.full((400, 1, 20, 20), 9.0)
    shown = Erasing()(images, keys(400))
    erased = shown != images
    hit = erased.flatten(1).any(dim=1)
    assert 160 < hit.sum() < 240
    one, two = (shown[n][erased[n]] for n in hit.nonzero().flatten()[:2])
    count = min(len(one), len(two))
    assert not torch.equal(one[:count], two[:count]) and shown[hit].min() < -2
