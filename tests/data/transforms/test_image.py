"""How images are presented: sizes, channels, statistics and augmentation, resolved from the data and back."""

import functools
import random
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.images import opened, write_classes, write_image
from helpers.tasks import CLASSIFICATION
from helpers.transforms import shows
from selfdistill.config.recipe import DataPart
from selfdistill.data import Splits, choose_defaults, image_shape, open_splits
from selfdistill.data.random.keys import derive_keys
from selfdistill.data.transforms.batch import Cutout
from selfdistill.data.transforms.image import RandomRectangle, eval_transform, find_draft_side, train_transform

PLAIN = {"mean": [0.0] * 3, "std": [1.0] * 3, "channels": 3}


@functools.cache
def digits() -> Splits:
    return open_splits(DataPart(source="digits"), CLASSIFICATION)


def resolved(source, **settings) -> DataPart:
    part = DataPart(source=str(source), **settings)
    return choose_defaults(part, open_splits(part, CLASSIFICATION), CLASSIFICATION)


def plain(size, augment="none", **settings) -> DataPart:
    """A resolved part that does nothing but what is asked."""
    return choose_defaults(
        DataPart(image_size=size, augment=augment, **{**PLAIN, **settings}), digits(), CLASSIFICATION
    )


def training(part: DataPart) -> Callable[[Image.Image], torch.Tensor]:
    return shows(train_transform(part))


def evaluation(part: DataPart) -> Callable[[Image.Image], torch.Tensor]:
    return shows(eval_transform(part))


def image_of(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def values(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_classes(tmp_path_factory.mktemp("small"), {"a": 5, "b": 5})


@pytest.mark.slow
def test_digits_resolve_to_their_own_size_and_are_never_mirrored():
    part = resolved("digits")
    assert image_shape(part) == (1, 8, 8) and part.augment == ["crop"] and part.val_fraction == 0.2
    assert 0.2 < part.mean[0] < 0.4 and 0.3 < part.std[0] < 0.5


def test_a_resolved_part_resolves_to_itself_and_opens_the_same_rows(folder):
    part = resolved(folder)
    splits = open_splits(part, CLASSIFICATION)
    assert choose_defaults(part, splits, CLASSIFICATION) == part
    assert splits.train.fingerprint() == opened(folder).train.fingerprint()
    assert choose_defaults(DataPart.model_validate(part.model_dump(mode="json")), splits, CLASSIFICATION) == part


def test_auto_follows_size_and_channels_of_the_images(tmp_path, folder):
    part = resolved(folder)
    assert image_shape(part) == (3, 6, 8) and part.augment == ["crop", "flip"]
    assert image_shape(resolved(write_classes(tmp_path / "grey", {"a": 2, "b": 2}, mode="L"))) == (1, 6, 8)
    assert image_shape(resolved(write_classes(tmp_path / "alpha", {"a": 2, "b": 2}, mode="RGBA"))) == (3, 6, 8)
    part = resolved(write_classes(tmp_path / "large", {"a": 2, "b": 2}, size=(65, 65)))
    assert image_shape(part) == (3, 224, 224) and part.augment == ["resized_crop", "flip"]
    write_classes(tmp_path / "mixed", {"a": 3, "b": 3})
    for name in "ab":
        for number in range(2):
            write_image(tmp_path / "mixed" / name / f"{number}.png", size=(7, 7), mode="L")
    assert image_shape(resolved(tmp_path / "mixed")) == (3, 224, 224)
    part = resolved(tmp_path / "mixed", image_size=16, channels=4)
    assert image_shape(part) == (4, 16, 16) and part.augment == ["crop", "flip"] and len(part.mean) == 4
    assert image_shape(resolved(tmp_path / "mixed", image_size=[10, 12], channels=1)) == (1, 10, 12)


def test_val_fraction_is_filled_in_only_where_something_was_held_out(tmp_path, folder):
    assert resolved(folder).val_fraction == 0.2 and resolved(folder, val_fraction=0.4).val_fraction == 0.4
    assert resolved(folder, limit=4).val_fraction == 0.2
    write_classes(tmp_path / "train", {"a": 2, "b": 2})
    write_classes(tmp_path / "val", {"a": 2, "b": 2})
    assert resolved(tmp_path).val_fraction is None


def test_a_constant_channel_is_only_centred(tmp_path):
    for name in "ab":
        for number in range(2):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.new("RGBA", (4, 4), (51 * number, 0, 0, 255)).save(tmp_path / name / f"{number}.png")
    part = resolved(tmp_path, channels=4)
    assert part.mean[1:] == [0, 0, 1] and part.std[1:] == [1, 1, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mean": [0.5]}, "data.mean has 1 value, but the images have 3 channels"),
        ({"std": [0.5, 0.5]}, "data.std has 2 values"),
        ({"mean": [123.0, 117.0, 104.0]}, "not of values in .*divide by 255"),
        ({"augment": "crops"}, "no augmentation of labeled images is called 'crops'; did you mean 'crop'"),
        ({"augment": ["crop", "none"]}, "augment=none stands alone"),
        ({"augment": "wonder"}, "there are crop, reflect_crop, resized_crop, flip"),
        ({"augment": "no_such_module:f"}, "no module .no_such_module. is installed"),
        ({"augment": "json:dmups"}, "json has no function .dmups.; did you mean .json:dumps."),
        ({"augment": "sys:path"}, "sys has no function .path."),
        ({"augment": "cutouts"}, "no augmentation of labeled images is called 'cutouts'; did you mean 'cutout'"),
        ({"augment": ["erasing", "crop"]}, "augment=erasing works on the finished image.* not before crop"),
        ({"augment": ["crop", "cutout", "no:f"]}, "augment=cutout .* so it comes last, not before no:f"),
        (
            {"augment": "reflect_crop", "image_size": 70},
            "pads images of up to 64 .* 70x70; take crop",
        ),
        ({"augment": "randaugment", "channels": 4}, "randaugment works on 1 or 3 channels, not on 4"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_training(folder, settings, message):
    with pytest.raises(ValueError, match=message):
        resolved(folder, **settings)


def test_small_images_are_evaluated_as_they_are():
    image = image_of(16, 12)
    assert torch.equal(evaluation(plain([12, 16]))(image), values(image))


def test_small_images_of_another_size_are_resized_whole():
    assert evaluation(plain(16))(image_of(40, 20)).shape == (3, 16, 16)


def test_larger_images_are_evaluated_at_their_middle():
    image = Image.new("RGB", (512, 256), "black")
    image.paste((255, 255, 255), (256, 0, 512, 256))
    shown = evaluation(plain(224))(image)
    assert shown.shape == (3, 224, 224)
    assert shown[:, :, :111].max() == 0 and shown[:, :, 113:].min() == 1  # 256 x 512, then its middle 224
    for width, height in ((300, 20), (20, 300), (1, 1), (5000, 3)):
        assert evaluation(plain([72, 96]))(image_of(width, height)).shape == (3, 72, 96)


def test_normalisation_is_per_channel():
    part = plain(8, mean=[0.1, 0.2, 0.3], std=[0.5, 0.25, 1.0])
    image = image_of(8, 8)
    shown, pixels = evaluation(part)(image), values(image)
    for channel, (mean, std) in enumerate([(0.1, 0.5), (0.2, 0.25), (0.3, 1.0)]):
        assert torch.equal(shown[channel], (pixels[channel] - mean) / std)


@pytest.mark.slow
def test_crop_moves_a_small_image_over_a_margin_of_an_eighth():
    image = Image.new("RGB", (16, 16), "white")
    transform = training(plain(16, "crop"))
    torch.manual_seed(0)
    shown = torch.stack([transform(image) for _ in range(300)])[:, 0]
    assert set(shown.unique().tolist()) == {0.0, 1.0}
    empty_rows = (shown.sum(dim=2) == 0).sum(dim=1)
    empty_columns = (shown.sum(dim=1) == 0).sum(dim=1)
    assert empty_rows.max() == empty_columns.max() == 2 and empty_rows.min() == 0
    wide = training(plain([8, 32], "crop"))
    margin = torch.stack([wide(Image.new("RGB", (32, 8), "white")) for _ in range(300)])[:, 0]
    assert (margin.sum(dim=2) == 0).sum(dim=1).max() == 1 and (margin.sum(dim=1) == 0).sum(dim=1).max() == 4


def test_crop_of_larger_images_needs_no_padding():
    transform = training(plain(96, "crop"))
    assert all(transform(Image.new("RGB", (300, 200), "white")).min() == 1 for _ in range(10))


@pytest.mark.slow
def test_flip_mirrors_half_of_the_images():
    image = image_of(8, 8)
    transform = training(plain(8, "flip"))
    torch.manual_seed(0)
    mirrored = sum(torch.equal(transform(image), values(image).flip(2)) for _ in range(200))
    assert 70 < mirrored < 130
    assert sum(torch.equal(transform(image), values(image)) for _ in range(50)) > 10


@pytest.mark.slow
@pytest.mark.parametrize("size", [(32, 32), (32, 48), (9, 12)])
def test_cutout_sets_one_square_of_half_the_side_to_the_mean(size):
    transform = training(plain(list(size), "cutout", mean=[0.3, 0.4, 0.5], std=[0.2, 0.3, 0.4]))
    torch.manual_seed(0)
    whole = Image.new("RGB", size[::-1], "white")
    holes = torch.stack([transform(whole) for _ in range(400)]) == 0
    assert torch.equal(holes.any(dim=1), holes.all(dim=1))
    holes, side = holes[:, 0], min(size) // 2
    rows, columns = holes.any(dim=2), holes.any(dim=1)
    assert torch.equal(holes, rows[:, :, None] & columns[:, None, :])
    for hit in (rows, columns):
        heights = hit.sum(dim=1)
        assert heights.max() == side and heights.min() == side - side // 2  # clipped at the border
        places = hit.float().argmax(dim=1)
        assert all(one[place : place + extent].all() for one, place, extent in zip(hit, places, heights, strict=True))
        assert hit.any(dim=0).all()


def test_cutout_puts_the_middle_of_its_hole_anywhere_alike():
    images = torch.ones(4000, 1, 8, 8)
    holes = Cutout()(images, derive_keys([0], torch.arange(4000))[0])[:, 0] == 0
    middles = holes[:, 2:6, 2:6].float().mean(dim=0)  # four of eight middles reach these rows, and so these columns
    assert torch.allclose(middles, torch.full((4, 4), 0.25), atol=0.03)
    assert holes[:, 0, 0].float().mean().item() == pytest.approx((3 / 8) ** 2, abs=0.02) and images.min() == 1


@pytest.mark.slow
def test_erasing_replaces_a_rectangle_of_half_of_the_images_by_noise():
    transform = training(plain(32, "erasing", mean=[0.3, 0.4, 0.5], std=[0.2, 0.3, 0.4]))
    torch.manual_seed(0)
    whole = Image.new("RGB", (32, 32), "white")
    white = evaluation(plain(32, mean=[0.3, 0.4, 0.5], std=[0.2, 0.3, 0.4]))(whole)
    shown = torch.stack([transform(whole) for _ in range(800)])
    erased = (shown != white).all(dim=1)
    hit = erased.any(dim=(1, 2))
    assert hit.float().mean().item() == pytest.approx(0.5, abs=0.06)
    assert torch.equal(erased, erased.any(dim=2)[:, :, None] & erased.any(dim=1)[:, None, :])
    heights, widths = erased.any(dim=2).sum(dim=1)[hit], erased.any(dim=1).sum(dim=1)[hit]
    shares = heights * widths / 32**2
    assert 0.015 < shares.min() < 0.03 and 0.36 < shares.max() < 0.42
    assert shares.mean().item() == pytest.approx(0.2, abs=0.02)
    shapes = heights / widths
    assert 0.25 < shapes.min() < 0.4 and 2.5 < shapes.max() < 4
    noise = shown.permute(0, 2, 3, 1)[erased]
    assert torch.allclose(noise.mean(dim=0), torch.zeros(3), atol=0.02)
    assert torch.allclose(noise.std(dim=0), torch.ones(3), atol=0.02)


def test_erasers_follow_in_their_order():
    transform = training(plain(16, ["flip", "erasing", "cutout"]))
    torch.manual_seed(0)
    shown = [transform(Image.new("RGB", (16, 16), "white")) for _ in range(20)]
    assert all((one == 0).any() for one in shown) and any(one.min() < 0 for one in shown)


@pytest.mark.parametrize("name", ["cutout", "erasing"])
def test_erasers_draw_from_torchs_generator(name):
    transform, image = training(plain(16, ["crop", name])), image_of(16, 16)
    states = [torch.manual_seed(3) and [transform(image) for _ in range(4)] for _ in range(2)]
    assert all(torch.equal(one, two) for one, two in zip(*states, strict=True))
    assert not torch.equal(states[0][0], states[0][1])


@pytest.mark.parametrize("name", ["crop", "resized_crop", "rotation", "randaugment", "trivialaugment"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [8, 70])
def test_every_augmentation_gives_the_size_and_differs_between_draws(name, channels, size):
    part = plain(size, [name, "flip"], mean=[0.0] * channels, std=[1.0] * channels, channels=channels)
    transform = training(part)
    torch.manual_seed(0)
    shown = [transform(image_of(50, 40)) for _ in range(6)]
    assert all(one.shape == (channels, size, size) and one.dtype == torch.float32 for one in shown)
    assert any(not torch.equal(shown[0], one) for one in shown[1:])
    assert all(one.min() >= 0 and one.max() <= 1 for one in shown)


def test_no_augmentation_shows_what_evaluation_shows():
    image = image_of(90, 80)
    for size in (16, 70):
        assert torch.equal(training(plain(size))(image), evaluation(plain(size))(image))


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "my_augment.py").write_text(
        "import numpy as np, torch, random\n"
        "from PIL import Image, ImageOps\n"
        "def invert(image): return ImageOps.invert(image)\n"
        "def as_tensor(image): return torch.from_numpy(np.array(image)).permute(2, 0, 1)\n"
        "def as_floats(image): return as_tensor(image) / 255\n"
        "def grey(image): return image.convert('L')\n"
        "def nothing(image): pass\n"
        "def small(image): return image.resize((3, 3))\n"
        "def shift(image): return as_floats(image) * random.random()\n"
        "def blot(image): image.paste('white', (0, 0, 4, 4)); return image\n"
        "def dim(image): return image.mul_(0.5)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_augment", None)


def test_own_functions_may_give_images_or_tensors(own):
    image = image_of(8, 8)
    assert torch.allclose(training(plain(8, "my_augment:invert"))(image), 1 - values(image))
    for name in ("as_tensor", "as_floats"):
        shown = training(plain(8, [f"my_augment:{name}", "flip"]))(image)
        assert any(torch.allclose(shown, expected) for expected in (values(image), values(image).flip(2)))
    assert training(plain(8, "my_augment:grey"))(image).shape == (3, 8, 8)
    random.seed(0)
    transform = training(plain(8, "my_augment:shift"))
    assert not torch.equal(transform(image), transform(image))


@pytest.mark.parametrize(
    ("name", "message"),
    [("nothing", "my_augment:nothing returned a NoneType"), ("small", r"shape \(3, 3, 3\), not \(3, 8, 8\)")],
)
def test_own_functions_that_return_something_else_are_named(own, name, message):
    with pytest.raises(ValueError, match=message):
        training(plain(8, f"my_augment:{name}"))(image_of(8, 8))


def test_own_functions_that_change_what_they_are_given_leave_stored_images_alone(own):
    image = image_of(8, 8)
    before = image.tobytes()
    shown = training(plain(8, ["my_augment:blot", "my_augment:as_floats", "my_augment:dim"]))(image)
    assert (shown[:, :4, :4] == 0.5).all() and image.tobytes() == before


def test_a_random_rectangle_is_that_of_torchvision():
    from torchvision.transforms import v2

    rectangle, reference = RandomRectangle((96, 80)), v2.RandomResizedCrop((96, 80))
    for seed, image in enumerate([image_of(300, 200), image_of(90, 400), image_of(50, 50).convert("L")] * 4):
        torch.manual_seed(seed)
        made = np.asarray(rectangle(image))
        torch.manual_seed(seed)
        assert np.array_equal(made, np.asarray(reference(image)))


def test_the_smallest_crop_of_a_draft_keeps_the_size():
    assert find_draft_side(plain(224, ["resized_crop", "flip"])) == 792  # whose square has 224 * 224 / 0.08 pixels
    assert find_draft_side(plain((96, 128), ["resized_crop"])) == 453
    for augment in ("none", ["crop"], ["randaugment", "resized_crop"]):
        assert find_draft_side(plain(224, augment)) == 0
    assert find_draft_side(plain(64, ["resized_crop"])) == 0


@pytest.mark.parametrize("size, augment", [(64, ["resized_crop"]), (224, ["crop"]), (224, "none")])
def test_a_draft_that_cannot_be_is_refused(size, augment):
    with pytest.raises(ValueError, match=r"data.draft=true has no effect here: .* resized_crop"):
        train_transform(plain(size, augment).model_copy(update={"draft": True}))
