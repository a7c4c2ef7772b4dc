"""Random damage to tables, palettes and images: they are read, or refused in one sentence that names the file."""

import io
import json
import random

import numpy as np
import pytest
from PIL import Image

from helpers.images import opened
from helpers.mask_files import opened_masks, write_pairs
from selfdistill.data.datasets.conversion import convert_channels, refuse_mode
from selfdistill.data.datasets.image_io import read_format, read_image
from selfdistill.data.datasets.labels import number_labels

LABELS = [
    "",
    "0",
    "1",
    "1.0",
    "0.5",
    "-1",
    "cat",
    "Cat",
    "None",
    "nan",
    "1e5",
    "0_1",
    "9" * 30,
    '"',
    "é",
    "\u0661",
    "\x00",
]


def damage(data: bytes, rng: random.Random) -> bytes:
    """Flips, cuts, repeats or inserts some bytes."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        place = rng.randrange(len(changed)) if changed else 0
        match rng.randrange(5):
            case 0:
                changed[place : place + 1] = bytes([rng.randrange(256)])
            case 1:
                del changed[place : place + rng.randrange(1, 40)]
            case 2:
                changed[place:place] = changed[place : place + rng.randrange(1, 40)]
            case 3:
                changed[place:place] = rng.choice([b"\xff\xfe", b"\x00", b'"', b",", b"\n", b"\r", b";", b"\xe9", b"{"])
            case 4:
                changed = changed[:place]
    return bytes(changed)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_damaged_table_is_read_or_refused_by_name(images, suffix):
    rng, refused = random.Random(suffix), 0
    for _ in range(80):
        labels = ["a", "b"] * 4
        if rng.random() < 0.5:
            labels[rng.randrange(8)] = rng.choice(LABELS)
        rows = [(f"images/{i}.png", label) for i, label in enumerate(labels)]
        if suffix == ".csv":
            text = "\n".join(["path,label", *(f"{path},{label}" for path, label in rows)])
        else:
            text = "\n".join(json.dumps({"path": path, "label": label}) for path, label in rows)
        data = text.encode(rng.choice(["utf-8", "utf-8-sig", "utf-16"]), errors="surrogatepass")
        table = images / f"t{suffix}"
        table.write_bytes(damage(data, rng) if rng.random() < 0.5 else data)
        try:
            splits = opened(table)
        except ValueError as error:
            refused += 1
            assert f"t{suffix}" in str(error) or "images/" in str(error), error
        else:
            assert len(splits.train) > 0 and len(splits.train.classes) > 1
    assert 0 < refused < 80


def test_random_labels_are_numbers_or_names_of_all_rows():
    rng = random.Random(0)
    for _ in range(500):
        values = [rng.choice([*LABELS, 0, 1, 2.0, True, None, float("nan"), "a"]) for _ in range(rng.randrange(1, 6))]
        try:
            numbers, classes, _ = number_labels(values, lambda i: f"row {i}")
        except ValueError as error:
            assert str(error).startswith("row "), values
        else:
            assert len(numbers) == len(values) and all(0 <= k < len(classes) for k in numbers.tolist()), values
            spelled = [str(value).strip() for value in values]
            for one in range(len(values)):  # rows that say the same have one class
                for other in range(one):
                    if spelled[one] == spelled[other]:
                        assert numbers[one] == numbers[other], values


def test_a_damaged_palette_is_read_or_refused_by_line(tmp_path):
    rng = random.Random(0)
    write_pairs(tmp_path / "images", tmp_path / "masks", 3)
    for _ in range(60):
        (tmp_path / "class_dict.csv").write_bytes(damage(b"name,r,g,b\na,0,0,0\nb,255,0,0\nc,0,0,255\n", rng))
        try:
            assert len(opened_masks(tmp_path).train.classes) >= 2
        except ValueError as error:
            assert str(tmp_path) in str(error)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM"])
def test_a_damaged_image_is_read_or_refused_by_name(kind):
    rng = random.Random(kind)
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **({"exif": exif} if kind in ("PNG", "JPEG", "TIFF", "WEBP") else {}))
    whole = buffer.getvalue()
    for _ in range(60):
        blob = damage(whole, rng)
        try:
            header, image = read_format(blob, "x.img"), read_image(blob, "x.img")
            refuse_mode(header.mode)
            for channels in (1, 3, 4):
                shown = convert_channels(image, channels, (0.0, 255.0))
                assert np.asarray(shown).dtype == np.uint8 and shown.size == image.size
        except ValueError as error:
            assert "\n" not in str(error) and ("x.img" in str(error) or "mode" in str(error)), error
