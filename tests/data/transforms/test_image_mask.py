"""Images with masks: how both are presented together, what is resolved for them, and their batches."""

import pickle
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from helpers.masks import VOID, Drawn, blocks, noise
from helpers.tasks import CLASSIFICATION, SEGMENTATION
from helpers.transforms import shows_pairs
from selfdistill.config.recipe import DataPart
from selfdistill.data import (
    BatchSampler,
    EpochIndex,
    EvalSet,
    LabeledDataset,
    Sample,
    Splits,
    TrainSet,
    choose_defaults,
    eval_loader,
    train_loader,
)
from selfdistill.data.transforms.image_mask import (
    STEPS,
    ColorJitter,
    Pair,
    RandomBlur,
    RandomScale,
    RandomShortSide,
    choose_default_size,
)

STEP = 4  # shades from one column, or row, of `numbered` to the next


def presented(size, augment="none", channels=3, **settings) -> DataPart:
    """A resolved part that does nothing but what is asked."""
    names = [] if augment == "none" else [augment] if isinstance(augment, str) else augment
    plain = {"mean": [0.0] * channels, "std": [1.0] * channels}
    return DataPart(image_size=size, augment=names, channels=channels, **{**plain, **settings})


def training(size, augment="none", **settings):
    return shows_pairs(train_mask_transform(size, augment, **settings))


def train_mask_transform(size, augment="none", **settings):
    return SEGMENTATION.train_transform(presented(size, augment, **settings))


def numbered(height: int, width: int) -> tuple[Image.Image, torch.Tensor]:
    """Shades that grow along columns in red and along rows in green, and a mask of the pixels' numbers."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([STEP * x, STEP * y, np.zeros_like(x)], axis=-1).astype(np.uint8)
    return Image.fromarray(pixels), torch.from_numpy(y * width + x)


def values(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


def resolved(rows: LabeledDataset, **settings) -> DataPart:
    return choose_defaults(DataPart(**settings), Splits(rows, None, None, ()), SEGMENTATION)


# geometry


@pytest.mark.parametrize(
    ("augment", "furthest"),  # from the middle of the image's pixel to that of its label, in pixels
    [
        *(("none", 0.5), ("scale", 0.5), ("short_side", 0.5), ("crop", 0.5), ("flip", 0.5), ("blur", 0.5)),
        (["short_side", "scale", "crop", "flip"], 0.5),  # resized once
        (["flip", "short_side", "crop", "scale"], 1.5),  # resized again, from half of the size at worst
    ],
)
@pytest.mark.parametrize("short_side", [None, 31])
def test_each_pixel_of_the_image_stays_with_its_label(augment, furthest, short_side):
    image, mask = numbered(44, 60)
    transform = training((40, 36), augment, short_side=short_side)
    seen = 0
    for _ in range(25):
        shown, labels = transform(image, mask)
        assert shown.shape == (3, 40, 36) and labels.shape == (40, 36) and labels.dtype == torch.int64
        y, x = labels // 60, labels % 60
        padded = F.max_pool2d((labels == VOID).float()[None], 7, 1, 3)[0].bool()  # and what is close to it
        inside = ~padded & (y >= 4) & (y < 40) & (x >= 4) & (x < 56)  # filters are cut off at the borders
        for channel, place in enumerate((x, y)):
            off = shown[channel] * 255 / STEP - place
            assert off[inside].abs().max() <= furthest + 0.3  # a shade more or less by rounding
        seen += int(inside.sum())
    assert seen > 5000


def test_a_crop_of_an_enlarged_image_is_the_same_crop_of_all_of_it():
    image, mask = noise(23, 31), torch.arange(23 * 31).view(23, 31)
    for size in [(46, 62), (37, 55), (12, 17), (23, 31)]:
        pair = Pair(image, mask, size)
        whole, part = pair.resize(), pair.crop(3, 5, (8, 9))
        assert whole.image.size == size[::-1] and part.size == (8, 9)
        assert (255 * (values(part.image) - values(whole.image)[:, 3:11, 5:14])).abs().max() < 1.5
        assert torch.equal(part.mask, whole.mask[3:11, 5:14])
        nearest = F.interpolate(mask[None, None].double(), size=size, mode="nearest-exact")[0, 0].long()
        assert torch.equal(whole.mask, nearest)
        resized = image.resize(size[::-1], Image.Resampling.BILINEAR)
        assert np.array_equal(np.array(whole.image), np.array(resized))


def test_crop_reaches_every_place():
    image, mask = numbered(7, 6)
    transform = training((5, 5), "crop")
    corners = set()
    for _ in range(80):
        shown, labels = transform(image, mask)
        top, left = divmod(int(labels[0, 0]), 6)
        assert torch.equal(labels, mask[top : top + 5, left : left + 5])
        assert torch.equal(shown, values(image)[:, top : top + 5, left : left + 5])
        corners.add((top, left))
    assert corners == {(top, left) for top in range(3) for left in range(2)}


@pytest.mark.parametrize("augment", ["crop", "none"])
@pytest.mark.parametrize("size", [(5, 20), (20, 6), (4, 4), (9, 12)])
def test_smaller_images_are_padded_right_and_bottom_with_void_and_the_mean(augment, size):
    image, mask = noise(*size), blocks(*size)
    mean, std = [0.2, 0.41, 0.9], [0.2, 0.25, 0.3]
    shown, labels = training((9, 12), augment, mean=mean, std=std)(image, mask)
    height, width = min(size[0], 9), min(size[1], 12)
    beyond = torch.ones(9, 12, dtype=torch.bool)
    beyond[:height, :width] = False
    assert (labels[beyond] == VOID).all()
    assert shown[:, beyond].abs().max() <= 0.5 / 255 / 0.2 if beyond.any() else size == (9, 12)
    if size[0] <= 9 and size[1] <= 12:
        normalised = (values(image) - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        torch.testing.assert_close(shown[:, :height, :width], normalised)
        assert torch.equal(labels[:height, :width], mask)


def test_no_augmentation_shows_the_middle():
    image, mask = noise(10, 13), torch.arange(130).view(10, 13)
    shown, labels = training((6, 6))(image, mask)
    assert torch.equal(labels, mask[2:8, 3:9]) and torch.equal(shown, values(image)[:, 2:8, 3:9])


def test_scale_is_one_factor_between_half_and_two():
    step, pair = RandomScale((8, 8), (0, 0, 0)), Pair(noise(100, 200), blocks(100, 200), (100, 200))
    sizes = [step(pair).size for _ in range(300)]
    heights = torch.tensor([height for height, _ in sizes]) / 100
    assert all(abs(width - 2 * height) <= 1 for height, width in sizes)
    assert (
        0.5 <= heights.min() < 0.55
        and 1.95 < heights.max() <= 2
        and heights.mean().item() == pytest.approx(1.25, abs=0.08)
    )
    tiny = Pair(noise(1, 1), blocks(1, 1), (1, 1))
    assert all(min(step(tiny).size) == 1 for _ in range(5))


def test_short_side_is_every_whole_number_from_half_to_twice_the_crops():
    step, pair = RandomShortSide((8, 12), (0, 0, 0)), Pair(noise(30, 20), blocks(30, 20), (30, 20))
    sizes = {step(pair).size for _ in range(300)}
    assert {width for _, width in sizes} == set(range(4, 17))
    assert all(height == round(1.5 * width) for height, width in sizes)


def test_flip_mirrors_half_of_the_pairs():
    image, mask = noise(6, 8), torch.arange(48).view(6, 8)
    transform = training((6, 8), "flip")
    mirrored = 0
    for _ in range(200):
        shown, labels = transform(image, mask)
        is_mirrored = torch.equal(labels, mask.flip(1))
        assert torch.equal(shown, values(image).flip(2) if is_mirrored else values(image))
        mirrored += is_mirrored
    assert 70 < mirrored < 130


# colours


@pytest.mark.parametrize("name", ["colour", "blur"])
def test_colours_change_in_the_image_only(name):
    image, mask = noise(16, 16), blocks(16, 16)
    before, labels_before = values(image), mask.clone()
    shown = [training((16, 16), name)(image, mask) for _ in range(12)]
    assert all(torch.equal(labels, labels_before) for _, labels in shown) and torch.equal(mask, labels_before)
    assert sum(not torch.equal(one, before) for one, _ in shown) > 2 and torch.equal(values(image), before)


def test_brightness_is_between_half_and_one_and_a_half():
    step = ColorJitter((4, 4), (0, 0, 0))
    pair = Pair(Image.new("RGB", (4, 4), (100, 100, 100)), blocks(4, 4), (4, 4))  # grey: nothing else can change it
    shades = torch.tensor([step(pair).image.getpixel((0, 0))[0] for _ in range(300)])
    assert 50 <= shades.min() < 56 and 144 < shades.max() <= 150


def test_hue_turns_by_a_twentieth_of_its_circle_at_most():
    step = ColorJitter((1, 1), (0, 0, 0))
    pair = Pair(Image.new("RGB", (1, 1), (200, 100, 100)), blocks(1, 1), (1, 1))
    hues = torch.tensor([step(pair).image.convert("HSV").getpixel((0, 0))[0] for _ in range(200)])
    turned = torch.minimum(hues, 256 - hues) / 256
    assert 0.03 < turned.max() <= 0.05 + 2 / 256


def test_blur_spreads_half_of_the_images_by_a_pixel_at_most():
    point = Image.new("L", (21, 21))
    point.putpixel((10, 10), 255)
    step, pair = RandomBlur((21, 21), (0,)), Pair(point, blocks(21, 21), (21, 21))
    peaks = torch.tensor([step(pair).image.getpixel((10, 10)) for _ in range(200)])
    assert 70 < (peaks == 255).sum() < 145
    narrow = 255 / (2 * np.pi)  # the peak of a Gaussian of deviation 1
    assert 0.8 * narrow < peaks.min() < 1.3 * narrow


# evaluation


def test_evaluation_shows_the_whole_image_and_the_stored_mask():
    image, mask = noise(30, 41), blocks(30, 41)
    part = presented((8, 8), mean=[0.5, 0.4, 0.3], std=[0.1, 0.2, 0.3])
    shown, labels = SEGMENTATION.eval_transform(part)(Sample(image, mask))
    assert torch.equal(labels, mask)
    expected = (values(image) - torch.tensor(part.mean)[:, None, None]) / torch.tensor(part.std)[:, None, None]
    torch.testing.assert_close(shown, expected)
    smaller = SEGMENTATION.eval_transform(presented((8, 8), short_side=15))
    shown, labels = smaller(Sample(image, mask))
    assert shown.shape == (3, 15, 20) and torch.equal(labels, mask)
    assert torch.equal(smaller.show(image), shown)
    assert smaller.show(noise(50, 25)).shape == (3, 30, 15)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "I;16", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_of_every_mode_are_shown(mode, channels):
    image = noise(12, 10).convert("L") if mode == "I;16" else noise(12, 10)
    image = Image.fromarray(np.array(image).astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    names = ["scale", "crop", "flip", "blur"] + ["colour"] * (channels != 4)
    shown, labels = training((9, 14), names, channels=channels)(image, blocks(12, 10))
    assert shown.shape == (channels, 9, 14) and labels.shape == (9, 14) and 0 <= shown.min() <= shown.max() <= 1
    part = presented((9, 14), channels=channels)
    assert SEGMENTATION.eval_transform(part).show(image).shape == (channels, 12, 10)


# settings


@pytest.mark.parametrize(
    ("sizes", "short_side", "size"),
    [
        ({(360, 480)}, None, (360, 480)),
        ({(512, 300)}, None, (512, 300)),
        ({(513, 300)}, None, (512, 512)),
        ({(1024, 2048)}, 256, (256, 512)),
        ({(100, 200), (200, 400)}, 50, (50, 100)),  # they agree once resized
        ({(500, 375), (375, 500)}, None, (512, 512)),
        ({(60, 70), (50, 97)}, None, (128, 128)),
        ({(60, 70), (900, 97)}, None, (512, 512)),
    ],
)
def test_crops_are_as_large_as_the_images_up_to_512(sizes, short_side, size):
    assert choose_default_size(sizes, short_side) == size


def test_everything_that_is_left_open_is_decided_from_the_images():
    rows = Drawn((20, 30), (20, 30))
    part = resolved(rows)
    assert part.image_size == (20, 30) and part.channels == 3 and part.augment == ["scale", "crop", "flip"]
    assert part.classes == ["sky", "road", "car", "other"] and part.void == [3, 255]
    pixels = torch.stack([values(image) for image in rows.images]).double()
    assert part.mean == pytest.approx(pixels.mean(dim=(0, 2, 3)).tolist(), abs=1e-5)
    assert part.std == pytest.approx(pixels.std(dim=(0, 2, 3), correction=0).tolist(), abs=1e-5)
    assert choose_defaults(part, Splits(rows, None, None, ()), SEGMENTATION) == part
    assert resolved(Drawn((20, 30), mirrorable=False)).augment == ["scale", "crop"]
    assert resolved(rows, augment="none").augment == [] and resolved(rows, image_size=7).image_size == (7, 7)
    assert resolved(Drawn((20, 30), (30, 20))).image_size == (32, 32)


def test_mean_and_std_are_those_of_whole_images_as_evaluation_shows_them():
    rows = Drawn((40, 60), (50, 30))
    part = resolved(rows, short_side=10, image_size=4)
    shown = [
        values(image.resize(size, Image.Resampling.BILINEAR))
        for image, size in zip(rows.images, [(15, 10), (10, 17)], strict=True)
    ]
    pixels = torch.cat([one.flatten(1) for one in shown], dim=1).double()
    assert part.mean == pytest.approx(pixels.mean(dim=1).tolist(), abs=1e-5)
    assert part.std == pytest.approx(pixels.std(dim=1, correction=0).tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"short_side": 32}, "data.short_side=32 has no effect on task=classification"),
        ({"window": True}, "data.window=True has no effect"),
        ({"classes": ["a", "b"]}, r"data.classes=\['a', 'b'\] has no effect on task=classification"),
        ({"void": [3]}, r"data.void=\[3\] has no effect"),
        ({"palette": "p.csv"}, "data.palette=p.csv has no effect"),
        (
            {"augment": "colour"},
            "labeled images is called 'colour'; there are crop, reflect_crop, resized_",
        ),
        ({"augment": ["scale", "crop"]}, "no augmentation of labeled images is called 'scale'"),
    ],
)
def test_settings_of_masks_are_refused_without_masks(settings, message):
    with pytest.raises(ValueError, match=message):
        choose_defaults(DataPart(**settings), Splits(Drawn((8, 8)), None, None, ()), CLASSIFICATION)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"augment": "randaugment"},
            "of images with masks is called 'randaugment'; there are scale, short_side, crop",
        ),
        ({"augment": ["crop", "cutout"]}, "of images with masks is called 'cutout'"),
        ({"augment": "color"}, "did you mean 'colour'"),
        ({"augment": ["flip", "scale", "short_side"]}, "augment=scale has no effect before short_side"),
        ({"augment": ["crop", "auto"]}, "augment=auto stands alone, not in a list"),
        ({"augment": "no_such_module:f"}, "no module .no_such_module. is installed"),
        ({"augment": ["crop", "colour"], "channels": 4}, "colour works on 1 or 3 channels, not on 4"),
        ({"mean": [0.5]}, "data.mean has 1 value, but the images have 3 channels"),
    ],
)
def test_settings_that_masks_cannot_have_are_refused_before_training(settings, message):
    with pytest.raises(ValueError, match=message):
        resolved(Drawn((8, 8), (8, 8)), **settings)


def test_names_stand_in_the_table_of_steps_and_in_the_recipes_description():
    described = DataPart.model_fields["augment"].description.partition("segmentation:")[2]
    assert all(f"{name}," in described for name in STEPS)


# users' functions


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "my_joint.py").write_text(
        "import torch\n"
        "from torchvision.transforms import v2\n"
        "def upside_down(image, mask): return image.transpose(1), mask.flip(0)\n"
        "turned = v2.RandomVerticalFlip(p=1)\n"
        "def smaller(image, mask): return image.crop((0, 0, 4, 3)), mask[:3, :4]\n"
        "def grey(image, mask): return image.convert('L'), mask\n"
        "def image_alone(image, mask): return image\n"
        "def tensors(image, mask): return torch.zeros(3, 8, 8), mask\n"
        "def floats(image, mask): return image, mask.float()\n"
        "def torn(image, mask): return image, mask[1:]\n"
        "def broken(image, mask): raise KeyError('no')\n"
        "def blot(image, mask): image.paste('white', (0, 0, 4, 4)); return image, mask.fill_(1)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_joint", None)


@pytest.mark.parametrize("name", ["upside_down", "turned"])
def test_own_functions_take_image_and_mask(own, name):
    image, mask = noise(6, 8), torch.arange(48).view(6, 8)
    shown, labels = training((6, 8), f"my_joint:{name}")(image, mask)
    assert torch.equal(labels, mask.flip(0)) and torch.equal(shown, values(image).flip(1))
    assert type(labels) is torch.Tensor


def test_own_functions_that_change_what_they_are_given_leave_stored_images_alone(own):
    image, mask = noise(6, 8), torch.arange(48).view(6, 8)
    before = image.tobytes()
    shown, labels = training((6, 8), "my_joint:blot")(image, mask)
    assert (labels == 1).all() and (shown[:, :4, :4] == shown.max()).all()
    assert image.tobytes() == before and torch.equal(mask, torch.arange(48).view(6, 8))


def test_what_own_functions_cut_off_is_padded(own):
    image, mask = noise(6, 8), torch.arange(48).view(6, 8)
    shown, labels = training((6, 8), ["crop", "my_joint:smaller"])(image, mask)
    assert torch.equal(labels[:3, :4], mask[:3, :4]) and (labels[3:] == VOID).all() and shown.shape == (3, 6, 8)
    assert training((6, 8), "my_joint:grey")(image, mask)[0].shape == (3, 6, 8)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("image_alone", "returned a Image, not an image and a mask"),
        ("tensors", r"returned float32 of \(3, 8, 8\) for the image, not a PIL image"),
        ("floats", r"returned float32 of \(6, 8\) for the mask, not int64 of \(h, w\)"),
        ("torn", "returned what does not fit: the mask is of height x width 5x8 and the image 6x8"),
        ("broken", "raised KeyError: 'no'"),
    ],
)
def test_own_functions_that_return_something_else_are_named(own, name, message):
    with pytest.raises(ValueError, match=f"the transform my_joint:{name} {message}"):
        training((6, 8), f"my_joint:{name}")(noise(6, 8), blocks(6, 8))


# batches


SIZES = [(20, 30), (24, 18), (40, 33), (16, 16), (21, 22)]
EVERY = ["short_side", "scale", "crop", "flip", "colour", "blur"]


def loaded(rows: LabeledDataset, workers: int = 0, seed: int = 0) -> list:
    dataset = TrainSet(rows, train_mask_transform((16, 20), EVERY), seed=seed)
    return list(train_loader(dataset, BatchSampler(len(rows), 2, seed=0).epoch(1), workers=workers))


def test_batches_of_masks_have_the_crops_size():
    for batch in loaded(Drawn(*SIZES)):
        assert batch.images.shape == (2, 3, 16, 20) and batch.images.dtype == torch.float32
        assert batch.target.shape == (2, 16, 20) and batch.target.dtype == torch.int64
        assert set(batch.target.unique().tolist()) <= {0, 1, 2, VOID} and type(batch.target) is torch.Tensor


def test_what_is_drawn_for_masks_depends_on_seed_epoch_and_row_alone():
    rows = Drawn(*SIZES)
    alone = loaded(rows)
    torch.manual_seed(9)
    for others in (loaded(rows), loaded(rows, workers=2)):
        for one, two in zip(alone, others, strict=True):
            assert all(torch.equal(getattr(one, name), getattr(two, name)) for name in ("images", "target", "index"))
    assert not torch.equal(alone[0].images, loaded(rows, seed=1)[0].images)


def test_a_training_set_with_masks_can_be_sent_to_a_fresh_process():
    dataset = TrainSet(Drawn(*SIZES), train_mask_transform((16, 20), EVERY), seed=0)
    sent = pickle.loads(pickle.dumps(dataset))
    one, two = dataset[EpochIndex(2, 3)], sent[EpochIndex(2, 3)]
    assert all(torch.equal(getattr(one, name), getattr(two, name)) for name in ("images", "target", "index"))


@pytest.mark.parametrize("workers", [0, 1])
def test_images_of_different_sizes_are_evaluated_one_by_one(workers):
    rows, transform = Drawn(*SIZES), SEGMENTATION.eval_transform(presented((8, 8), short_side=12))
    batches = list(eval_loader(EvalSet(rows, transform), batch_size=1, workers=workers))
    for number, (batch, size) in enumerate(zip(batches, SIZES, strict=True)):
        assert torch.equal(batch.target, blocks(*size)[None]) and batch.index.tolist() == [number]
        assert batch.images.shape[0] == 1 and min(batch.images.shape[2:]) == 12
    with pytest.raises(ValueError, match="do not make one batch; where sizes differ, batch_size=1 is allowed"):
        list(eval_loader(EvalSet(rows, transform), batch_size=2, workers=workers))


def test_a_mask_of_another_size_than_its_image_names_the_row():
    rows = Drawn((8, 8), (8, 9))
    rows.masks[1] = blocks(9, 8)
    with pytest.raises(ValueError, match="^scene 1: the mask is of height x width 9x8 and the image 8x9; they must"):
        TrainSet(rows, train_mask_transform((8, 8)), seed=0)[EpochIndex(0, 1)]
