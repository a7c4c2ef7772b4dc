"""Images of more than 8 bits, or of other channels, on their way to a batch."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.deep_images import write_pages, write_scenes
from helpers.masks import blocks
from helpers.tasks import CLASSIFICATION, SEGMENTATION
from selfdistill.config.recipe import DataPart
from selfdistill.data import BatchSampler, EvalSet, Sample, TrainSet, eval_loader, prepare_data, train_loader
from selfdistill.data.datasets.bands import Bands
from selfdistill.data.findings import find_all
from selfdistill.data.inspection import inspect_images
from selfdistill.data.transforms.image_mask import CropOrPad, Pair, RandomBlur, resize_for_evaluation

CACHES = ("none", "device", "memory", "disk")


@pytest.fixture(scope="module")
def thermal(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("thermal"))


@pytest.fixture(scope="module")
def bands(tmp_path_factory):
    return write_scenes(tmp_path_factory.mktemp("bands"), channels=5)


@pytest.fixture(autouse=True)
def folder_of_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SELFDISTILL_CACHE", str(tmp_path / "cache"))


def load(folder, cache="none", **settings):
    prepared = prepare_data(DataPart(source=str(folder), **settings), CLASSIFICATION, cache=cache)
    steps = BatchSampler(len(prepared.train), 4, seed=0, drop_last=False).epoch(0)
    train = TrainSet(prepared.train, CLASSIFICATION.train_transform(prepared.settings), seed=3)
    held_out = EvalSet(prepared.held_out, CLASSIFICATION.eval_transform(prepared.settings))
    batches = [*train_loader(train, steps), *eval_loader(held_out, batch_size=3)]
    return prepared, torch.cat([batch.images for batch in batches])


@pytest.mark.parametrize("size", [12, 80])
def test_every_cache_gives_the_same_floats(bands, size):
    images = {}
    for cache in CACHES:
        if (cache, size) != ("device", 80):  # larger images are cropped one by one
            images[cache] = load(bands, cache, image_size=(size, size))[1]
    assert images["none"].dtype == torch.float32
    assert all(torch.equal(images["none"], kept) for kept in images.values())
    assert torch.equal(load(bands, "disk", image_size=(size, size))[1], images["none"])  # from the file


def test_normalized_channels_have_mean_0_and_deviation_1(bands):
    prepared, images = load(bands, augment="none")
    assert prepared.settings.channels == 5 and len(prepared.settings.value_range) == 5
    training = images[: len(prepared.train)]
    assert training.mean(dim=(0, 2, 3)).abs().max() < 1e-3
    assert torch.allclose(training.std(dim=(0, 2, 3)), torch.ones(5), atol=1e-2)
    note = next(note for note in prepared.notes if "data.value_range" in note)
    assert note.startswith("images keep their values: a range for each of 5 channels")


def test_the_range_of_a_thermal_camera_fills_0_to_1(thermal):
    prepared, images = load(thermal, augment="none", mean=[0.0], std=[1.0])
    low, high = prepared.settings.value_range
    assert 26_500 < low < 27_500 and 30_500 < high < 31_500
    assert images.min() == 0 and images.max() == 1 and len(images.unique()) > 256


def test_a_resumed_run_takes_the_range_that_it_stored(thermal, bands):
    for folder in (thermal, bands):
        settings = load(folder)[0].settings
        again = prepare_data(settings, CLASSIFICATION)
        assert again.settings == settings and not any("data.value_range" in note for note in again.notes)
        assert DataPart.model_validate_json(settings.model_dump_json()) == settings


def test_a_run_from_before_there_was_a_range_reads_8_bits(thermal):
    settings = load(thermal)[0].settings.model_copy(update={"value_range": None})
    assert prepare_data(settings, CLASSIFICATION).settings.value_range is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"augment": ["randaugment"]}, "augment=randaugment works on images of 8 bits, and these keep more"),
        ({"value_range": (0.0, 9.0), "gray_range": (0.0, 9.0)}, "data.gray_range reduces images to 8 bits, and"),
        ({"value_range": [(0.0, 9.0), (0.0, 8.0)]}, "data.value_range has 2 ranges, but the images have 1 channel"),
        ({"gray_range": (0.0, 9.0), "channels": 2}, "data.gray_range makes images of 1, 3 or 4 channels, not of 2"),
        ({"channels": 2}, "0.png: it has 1 channel, and data.channels=2"),
    ],
)
def test_settings_that_do_not_fit_are_refused(thermal, settings, message):
    with pytest.raises(ValueError, match=message):
        prepare_data(DataPart(source=str(thermal), **settings), CLASSIFICATION)


def test_a_range_for_8_bits_is_refused_and_8_bits_stay_possible(thermal):
    with pytest.raises(ValueError, match=r"data.value_range=\[0.0, 9.0\] has no effect on images of 8 bits"):
        prepare_data(DataPart(source="digits", value_range=(0.0, 9.0)), CLASSIFICATION)
    reduced, images = load(thermal, gray_range=(27_000, 31_000), mean=[0.0], std=[1.0], augment=["trivialaugment"])
    assert reduced.settings.value_range is None and len(images.unique()) <= 256


def test_augmentations_move_floats_as_they_move_bytes(bands):
    names = ["crop", "flip", "rotation", "cutout", "erasing"]
    _, images = load(bands, augment=names)
    assert images.isfinite().all() and (images == 0).any()


def test_an_array_beside_pictures_is_no_image(tmp_path):
    write_scenes(tmp_path)
    np.save(tmp_path / "cold" / "features.npy", np.zeros((2, 3)))
    prepared = prepare_data(DataPart(source=str(tmp_path)), CLASSIFICATION)
    assert len(prepared.train) + len(prepared.held_out) == 16
    assert any("left out 1 other file, not images" in note for note in prepared.notes)


def test_pages_that_are_not_read_are_mentioned(tmp_path):
    for name, number in itertools.product(("a", "b"), range(4)):
        (tmp_path / name).mkdir(exist_ok=True)
        pages = np.random.default_rng(number).integers(0, 999, (8, 8, 6), np.uint16)
        write_pages(tmp_path / name / f"{number}.tif", pages)
    first = prepare_data(DataPart(source=str(tmp_path)), CLASSIFICATION)
    assert first.settings.channels == 1 and any("has several pages" in note for note in first.notes)
    every = prepare_data(DataPart(source=str(tmp_path), channels=6), CLASSIFICATION)
    assert len(every.settings.mean) == 6 and not any("has several pages" in note for note in every.notes)


def test_a_check_tells_depth_and_range(bands):
    dataset = prepare_data(DataPart(source=str(bands)), CLASSIFICATION).splits.train
    inspection = inspect_images(dataset, range(len(dataset)))
    assert not inspection.errors
    sentences = {finding.title: finding.sentence for finding in find_all({"train": inspection})}
    assert "of mode float32 x 5 have values from" in sentences["More than 8 bits, or other channels"]


def as_floats(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image, np.float32)).permute(2, 0, 1) / 255


def test_floats_with_masks_are_resized_cropped_and_padded_as_bytes_are():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 52, 3), np.uint8)
    image, mask = Image.fromarray(pixels), blocks(40, 52)
    pairs = [Pair(shown, mask, (67, 87)) for shown in (image, as_floats(image))]
    whole, floats = (pair.crop(5, 7, (30, 31)) for pair in pairs)
    assert torch.allclose(as_floats(whole.image), floats.image, atol=1.5 / 255)
    assert torch.equal(whole.mask, floats.mask)
    small, small_floats = (resize_for_evaluation(pair.image, 17) for pair in pairs)
    assert torch.allclose(as_floats(small), small_floats, atol=1.5 / 255)
    padded = CropOrPad((80, 60), [0.2, 0.4, 0.6])(pairs[1])
    assert torch.allclose(padded.image[:, -1, -1], torch.tensor([0.2, 0.4, 0.6])) and padded.mask[-1, -1] < 0
    torch.manual_seed(0)
    step = RandomBlur((40, 52), [0.0] * 3)
    blurred = [step(Pair(as_floats(image), mask, (40, 52))).image for _ in range(8)]
    assert all(result.shape == (3, 40, 52) and (result.std() < as_floats(image).std() + 1e-6) for result in blurred)


def test_deep_images_with_masks_become_batches():
    values = np.random.default_rng(0).normal(300, 9, (20, 24, 6)).astype(np.float32)
    names = ["short_side", "scale", "crop", "flip", "blur"]
    settings = DataPart(
        image_size=(16, 16), augment=names, channels=6, value_range=[(270.0, 330.0)] * 6, mean=[0.5] * 6, std=[0.2] * 6
    )
    sample = Sample(Bands(values), blocks(20, 24))
    for transform in (SEGMENTATION.train_transform(settings), SEGMENTATION.eval_transform(settings)):
        shown = transform(sample)
        assert shown.image.shape[0] == 6 and shown.image.shape[1:] == shown.target.shape
        assert shown.image.dtype == torch.float32 and shown.image.isfinite().all()
