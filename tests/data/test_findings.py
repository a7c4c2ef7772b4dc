"""What a check of a data set finds: each fault is planted, and a clean set has none."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from helpers.mask_files import write_mask
from helpers.tasks import SEGMENTATION
from selfdistill.config.recipe import DataPart
from selfdistill.data.datasets.registry import open_source
from selfdistill.data.duplicates import find_alike, join_pairs
from selfdistill.data.findings import count_classes, find_all
from selfdistill.data.inspection import SIDE, inspect_images
from selfdistill.tasks import find_task


def draw(seed, size=(48, 40)):
    """A smooth picture with details, unlike that of any other seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def write(path, image, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **how)


def make_set(folder, *, classes=("cat", "dog"), train=12, val=4):
    for label, name in enumerate(classes):
        for number in range(train + val):
            split = "train" if number < train else "val"
            write(folder / split / name / f"{number}.png", draw(100 * label + number))
    return folder


def look(folder, task=None, **settings):
    data = DataPart(source=str(folder), **settings)
    opened = open_source(data, str(folder), task or find_task("classification"))
    return {split: inspect_images(each, range(len(each))) for split, each in opened.splits.items()}


def find(folder, **options):
    return {finding.title: finding for finding in find_all(look(folder, **options))}


def test_a_clean_set_has_no_finding(tmp_path):
    assert find(make_set(tmp_path)) == {}


def test_every_planted_fault_is_found_and_named(tmp_path):
    folder = make_set(tmp_path)
    first, second, third = (folder / "train" / "cat" / f"{number}.png" for number in range(3))
    write(folder / "val" / "cat" / "leak.png", Image.open(first))
    write(folder / "val" / "dog" / "near.jpg", Image.open(second).resize((90, 75)).point(lambda v: v // 2), quality=60)
    (folder / "train" / "dog" / "same.png").write_bytes(third.read_bytes())
    (folder / "train" / "dog" / "cut.png").write_bytes(third.read_bytes()[:400])
    (folder / "train" / "dog" / "none.jpg").touch()
    write(folder / "train" / "cat" / "black.png", Image.new("RGB", (48, 40), (3, 3, 4)))
    write(folder / "train" / "cat" / "deep.png", Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)))
    write(folder / "train" / "cat" / "long.png", draw(7777, (200, 30)))
    write(folder / "train" / "Cat" / "1.png", draw(8888))
    write(folder / "val" / "bird" / "1.png", draw(9999))
    found = find(folder)
    problems = {title for title, finding in found.items() if finding.level == "problem"}
    assert problems == {
        "Unusable images",
        "Duplicates across splits",
        "Near duplicates across splits",
        "Duplicates under different labels",
        "Classes of val alone",
    }
    assert ["cut.png" in text or "none.jpg" in text for text in found["Unusable images"].examples] == [True, True]
    expected = {
        "Duplicates across splits": ("0.png", "leak.png"),
        "Near duplicates across splits": ("1.png", "near.jpg"),
    }
    expected["Duplicates under different labels"] = ("2.png", "same.png")
    for title, names in expected.items():
        assert len(found[title].examples) == 1 and all(name in found[title].examples[0] for name in names)
    assert {"Nearly empty images", "Unequal classes", "Small classes", "Classes that val lacks"} <= found.keys()
    assert found["Class names that look alike"].examples == ["Cat", "cat"]
    assert {"Several depths", "Several sizes", "Several color modes", "Very long images"} <= found.keys()
    assert "12 times" not in found["Unequal classes"].sentence and "'cat' has 15" in found["Unequal classes"].sentence
    assert [*found] == sorted(found, key=lambda title: ("problem", "warning", "note").index(found[title].level))


def test_an_image_is_told_by_its_bytes_and_shown_upright(tmp_path):
    path, turn = tmp_path / "train" / "a" / "1.jpg", Image.Exif()
    turn[0x0112] = 6
    write(path, draw(1, (64, 32)), exif=turn)
    write(tmp_path / "train" / "b" / "2.jpg", draw(2))
    seen = look(tmp_path)["train"].seen[0]
    assert seen.format.size == (32, 64) and seen.num_bytes == path.stat().st_size
    assert seen.digest == hashlib.blake2b(path.read_bytes(), digest_size=16).digest()
    upright = np.asarray(
        draw(1, (64, 32)).rotate(-90, expand=True).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    )
    assert np.abs(upright.astype(int) - seen.thumbnail).mean() < 6


def test_masks_tell_rare_classes_and_void(tmp_path):
    for number in range(6):
        write(tmp_path / "images" / f"{number}.png", draw(number, (40, 40)))
        mask = np.full((40, 40), 255)
        mask[:15], mask[0, 0] = 0, 1 if number == 0 else 0
        write_mask(tmp_path / "masks" / f"{number}.png", mask)
    found = find(tmp_path, task=SEGMENTATION, classes=["ground", "wire"])
    assert found["Rare classes"].examples == ["wire: 0.028% of the labeled pixels"]
    assert "62% of the training pixels have no class" in found["Mostly void"].sentence
    assert count_classes(look(tmp_path, task=SEGMENTATION, classes=["ground", "wire"])["train"]) == {
        "ground": 6,
        "wire": 1,
    }


def test_alike_means_alike_up_to_brightness_and_contrast():
    first, second = (np.asarray(draw(seed, (SIDE, SIDE)).convert("L")) for seed in (1, 2))
    faint = np.full((SIDE, SIDE), 9, np.uint8)
    pairs = find_alike(np.stack([first, second, first // 2 + 60, faint, faint]))
    assert pairs == [(0, 2)]
    assert find_alike(np.zeros((0, SIDE, SIDE), np.uint8)) == []


@pytest.mark.parametrize("count", [1, 1030])
def test_pairs_are_found_in_every_block(count):
    noise = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE), dtype=np.uint8)
    both = np.concatenate([noise, noise[::-1]])
    pairs = find_alike(both)
    assert pairs == [(k, 2 * count - 1 - k) for k in range(count)] and len(join_pairs(pairs)) == count
