"""Reading single images: modes, orientation, damage, and the check that looks at all of them before training."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from helpers.images import damage, encoded, opened, write_classes, write_image, write_parquet
from helpers.mask_files import opened_masks, write_mask, write_pairs
from helpers.tasks import CLASSIFICATION
from selfdistill.config.read import read
from selfdistill.config.recipe import DataPart
from selfdistill.data import check, choose_defaults, prepare_data, read_image
from selfdistill.data.datasets import base as rows_module
from selfdistill.data.datasets import threads
from selfdistill.data.datasets.base import select_evenly
from selfdistill.data.datasets.conversion import convert_channels
from selfdistill.data.datasets.image_io import FORMATS, read_format


def noise(mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 4), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16"])
def test_every_safe_mode_becomes_the_wanted_channels(mode, channels):
    image = Image.fromarray(np.full((6, 8), 999, np.uint16)) if mode == "I;16" else noise("RGB").convert(mode)
    made = convert_channels(image, channels)
    assert made.mode == {1: "L", 3: "RGB", 4: "RGBA"}[channels] and made.size == (8, 6)


def test_16_bit_grey_is_scaled_not_clipped(tmp_path):
    values = np.array([[0, 128, 257, 32896, 65535]], dtype=np.uint16)
    for suffix in (".png", ".tif"):
        Image.fromarray(values).save(tmp_path / f"deep{suffix}")
        made = convert_channels(read_image(str(tmp_path / f"deep{suffix}")), 1)
        assert np.asarray(made).tolist() == [[0, 0, 1, 128, 255]]


def test_alpha_is_dropped_not_blended():
    image = noise("RGBA")
    assert convert_channels(image, 3).tobytes() == Image.fromarray(np.asarray(image)[..., :3].copy()).tobytes()
    assert np.asarray(convert_channels(noise("RGB"), 4))[..., 3].min() == 255


def test_a_palette_is_looked_up(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    image.info["transparency"] = b"\x80\xff"  # partly transparent colours
    image.save(tmp_path / "p.png")
    read = read_image(str(tmp_path / "p.png"))
    assert np.asarray(convert_channels(read, 3)).tolist() == [[[10, 20, 30], [200, 100, 50]]]
    assert read_format(str(tmp_path / "p.png")).mode == "PA"


@pytest.mark.parametrize("mode", ["F", "I"])
def test_values_of_unknown_range_beside_8_bits_are_refused_with_their_file(tmp_path, mode):
    write_classes(tmp_path / "train", {"a": 2, "b": 2})
    write_classes(tmp_path / "val", {"a": 1, "b": 1})
    for split in ("train", "val"):
        deep = tmp_path / split / "b" / "9.tif"
        Image.new(mode, (8, 6), 7).save(deep)
        part = DataPart(source=str(tmp_path))
        ranged = part.model_copy(update={"gray_range": (0.0, 9.0)})
        with pytest.raises(ValueError, match=f"{split}/b/9.tif has values of unknown range .*say with data.gray_range"):
            choose_defaults(part, opened(tmp_path), CLASSIFICATION)
        assert choose_defaults(
            part.model_copy(update={"gray_range": (0.0, 9.0)}), opened(tmp_path), CLASSIFICATION
        ).mean
        deep.unlink()
    with pytest.raises(ValueError, match=r"gray_range=\[0.0, 9.0\] has no effect on images of 8 bits"):
        choose_defaults(ranged, opened(tmp_path), CLASSIFICATION)


def write_deep(folder, dtype, low, spread, count=6):
    """Two classes whose gray values differ by a fifth of their spread, beside one dead and one hot pixel."""
    suffix = ".png" if dtype == np.uint16 else ".tif"
    for k, name in enumerate(("low", "high")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            noise = np.random.default_rng(100 * k + number).random((100, 100))
            pixels = (low + spread * (0.8 * noise + 0.2 * k)).astype(dtype)
            if number == 0 and k == 0:
                pixels[0, 0], pixels[0, 1] = 0, 60000
            Image.fromarray(pixels).save(folder / name / f"{number}{suffix}")
    return folder


@pytest.mark.parametrize(
    ("dtype", "low", "spread"),
    [
        (np.uint16, 29650, 300),  # a thermal camera
        (np.uint16, 0, 1023),  # 10 bits
        (np.uint16, 100, 65000),
        (np.int32, -1000, 3000),  # tomography
        (np.int32, 2**24, 2**20),
        (np.float32, 273.15, 40.0),
    ],
)
def test_deep_gray_images_are_scaled_by_their_own_range(tmp_path, dtype, low, spread):
    rows = opened(write_deep(tmp_path, dtype, low, spread)).train
    part = choose_defaults(DataPart(source=str(tmp_path)), opened(tmp_path), CLASSIFICATION)
    assert part.channels == 1
    assert part.gray_range is None
    assert part.value_range == pytest.approx((low, low + spread), abs=0.02 * spread)
    show = CLASSIFICATION.eval_transform(part.model_copy(update={"mean": [0.0], "std": [1.0]})).show
    means = [np.mean([show(rows.image(i)).mean() for i in range(len(rows)) if rows.labels[i] == k]) for k in (0, 1)]
    assert means[rows.classes.index("high")] - means[rows.classes.index("low")] == pytest.approx(0.2, abs=0.02)
    again = choose_defaults(part, opened(tmp_path), CLASSIFICATION)
    assert again == part  # a resumed run takes the range that it stored


def test_the_range_of_gray_values_can_be_set_and_must_rise(tmp_path):
    write_deep(tmp_path, np.uint16, 1000, 500)
    part = choose_defaults(read(None, ["data.gray_range=1100,1200"]).data, opened(tmp_path), CLASSIFICATION)
    assert part.gray_range == (1100, 1200)
    with pytest.raises(ValueError, match="data.gray_range=.* must be two numbers, the lower one first"):
        read(None, ["data.gray_range=5,5"])
    image = Image.fromarray(np.array([[1100, 1160, 1300, 0]], dtype=np.uint16))
    assert np.asarray(convert_channels(image, 1, (1100.0, 1200.0))).tolist() == [[0, 153, 255, 0]]
    nan = Image.fromarray(np.array([[np.nan, 1200]], dtype=np.float32))
    assert np.asarray(convert_channels(nan, 1, (1100.0, 1200.0))).tolist() == [[0, 255]]
    with pytest.raises(ValueError, match="mode F has values of unknown range; set data.gray_range"):
        convert_channels(nan, 1)


def test_16_bits_beside_8_are_mentioned_with_the_setting(tmp_path):
    write_classes(tmp_path, {"a": 3, "b": 3})
    image = Image.fromarray(np.full((6, 8), 4095, np.uint16))
    image.save(tmp_path / "b" / "deep.png")
    note, setting = "b/deep.png is gray of 16 bits", DataPart(source=str(tmp_path))
    assert any(note in line for line in prepare_data(setting, CLASSIFICATION).notes)
    ranged = setting.model_copy(update={"gray_range": (0.0, 4095.0)})
    assert not any(note in line for line in prepare_data(ranged, CLASSIFICATION).notes)


def test_ranges_are_mentioned(tmp_path):
    prepared = prepare_data(DataPart(source=str(write_deep(tmp_path / "deep", np.uint16, 100, 900))), CLASSIFICATION)
    low, high = prepared.settings.value_range
    note = f"images keep more than 8 bits: their values from {low:g} to {high:g} become 0 to 1 (data.value_range)"
    assert note in prepared.notes
    for k, name in enumerate(("a", "b")):
        (tmp_path / "flat" / name).mkdir(parents=True)
        for number in range(4):
            Image.new("L", (8, 8), 115 + k).save(tmp_path / "flat" / name / f"{number}.png")
    notes = prepare_data(DataPart(source=str(tmp_path / "flat")), CLASSIFICATION).notes
    assert "the pixels of the training images lie between 115 and 116 of 255: hardly any contrast" in notes


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_exif_orientation_is_applied_and_known_from_the_header(tmp_path, orientation, suffix):
    image = Image.new("RGB", (16, 8))
    image.paste((255, 255, 255), (0, 0, 8, 8))  # the stored left half is white
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / f"x.{suffix}", exif=exif)
    shown = read_image(str(tmp_path / f"x.{suffix}"))
    found = read_format(str(tmp_path / f"x.{suffix}"))
    assert shown.size == (found.width, found.height) == ((16, 8) if orientation < 5 else (8, 16))
    white = {1: (2, 4), 2: (13, 4), 3: (13, 4), 4: (2, 4), 5: (4, 2), 6: (4, 2), 7: (4, 13), 8: (4, 13)}[orientation]
    assert shown.getpixel(white)[0] > 200


def test_the_header_of_a_png_is_read_without_its_pixels(tmp_path, monkeypatch):
    texts = PngImagePlugin.PngInfo()
    texts.add_text("Software", "none")
    noise("RGB").save(tmp_path / "x.png", pnginfo=texts)
    expected = read_format(str(tmp_path / "x.png"), decode=True)

    def load(image):
        raise AssertionError("decoded")

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", load)
    assert read_format(str(tmp_path / "x.png")) == read_format((tmp_path / "x.png").read_bytes()) == expected


def test_a_png_may_say_behind_its_pixels_or_in_a_text_how_it_is_turned(tmp_path):
    exif, texts = Image.Exif(), PngImagePlugin.PngInfo()
    exif[0x0112] = 6
    image = noise("RGB").crop((0, 0, 16, 8))
    image.save(tmp_path / "exif.png", exif=exif)
    png = (tmp_path / "exif.png").read_bytes()
    start = png.index(b"eXIf") - 4
    chunk = png[start : start + 12 + int.from_bytes(png[start : start + 4])]
    (tmp_path / "late.png").write_bytes(png.replace(chunk, b"")[:-12] + chunk + png[-12:])
    texts.add_itxt("XML:com.adobe.xmp", '<x tiff:Orientation="6"/>')
    image.save(tmp_path / "xmp.png", pnginfo=texts)
    for name in ("exif", "late", "xmp"):
        found = read_format(str(tmp_path / f"{name}.png"))
        assert (found.width, found.height) == read_image(str(tmp_path / f"{name}.png")).size == (8, 16)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_cost_a_sound_image(tmp_path):
    noise("RGB").save(tmp_path / "x.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\x7fgarbage")
    assert read_image(str(tmp_path / "x.jpg")).size == (8, 6)


def test_of_an_animation_the_first_frame_counts(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert convert_channels(read_image(str(tmp_path / "x.gif")), 3).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("kind", "message"),
    [("truncated", "truncated|image"), ("empty", "it is empty"), ("text", "no known image format"), ("scrambled", "")],
)
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_damaged_file_is_named_before_training(tmp_path, kind, message, suffix):
    write_classes(tmp_path, {"a": 3, "b": 3}, suffix=suffix, size=(40, 40))
    damage(tmp_path / "b" / f"1{suffix}", kind)
    with pytest.raises(ValueError, match=f"b/1{suffix} cannot be read as an image: .*({message})") as error:
        check(opened(tmp_path).train.dataset)
    assert "\n" not in str(error.value)


def test_a_pipe_is_refused_rather_than_waited_for(tmp_path):
    write_classes(tmp_path, {"a": 3, "b": 3})
    os.mkfifo(tmp_path / "b" / "x.png")
    with pytest.raises(ValueError, match=r"b/x.png is a folder, pipe or device, not a file"):
        check(opened(tmp_path).train.dataset)
    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(ValueError, match=r"t.csv is a folder, pipe or device, not a file"):
        opened(tmp_path / "t.csv")


def test_a_blob_in_a_table_is_named_by_its_row(tmp_path):
    pytest.importorskip("datasets")
    good = encoded(write_image(tmp_path / "x.png"))
    file = write_parquet(tmp_path / "x.parquet", [good, good, {"bytes": b"text", "path": None}, good], [0, 1, 0, 1])
    with pytest.raises(ValueError, match="row 2 of .*x.parquet cannot be read as an image"):
        check(opened(file).train.dataset)


def test_the_first_of_several_damaged_files_is_named_and_the_others_counted(tmp_path):
    write_classes(tmp_path, {"a": 4, "b": 4})
    for number in (1, 2, 3):
        damage(tmp_path / "a" / f"{number}.png", "text")
    with pytest.raises(ValueError, match=r"a/1.png .*\(and 2 more such images\)"):
        check(opened(tmp_path).train.dataset)


def test_large_sets_are_checked_by_their_headers(tmp_path, monkeypatch):
    write_classes(tmp_path, {"a": 4, "b": 4}, suffix=".jpg", size=(40, 40))
    damage(tmp_path / "a" / "1.jpg", "truncated")
    monkeypatch.setattr(rows_module, "DECODED", 7)
    check(opened(tmp_path).train.dataset)
    damage(tmp_path / "b" / "3.jpg", "text")
    with pytest.raises(ValueError, match="b/3.jpg"):
        check(opened(tmp_path).train.dataset)
    monkeypatch.setattr(rows_module, "HEADERS", 4)
    check(opened(tmp_path).train.dataset)


def test_alpha_is_mentioned_by_the_check(tmp_path):
    write_classes(tmp_path / "rgb", {"a": 2, "b": 2})
    write_classes(tmp_path / "rgba", {"a": 2, "b": 2}, mode="RGBA")
    assert check(opened(tmp_path / "rgb").train) == ()
    assert "alpha" in check(opened(tmp_path / "rgba").train)[0]


@pytest.mark.parametrize("processor_seconds", [0, 1], ids=["several threads", "one thread"])
def test_threads_keep_the_order(monkeypatch, processor_seconds):
    monkeypatch.setattr(threads, "LONG", processor_seconds)
    monkeypatch.setattr(threads, "WAITING", 1e9)
    for count in (0, 1, 8, 9, 40, 41, 1000):
        assert sum(threads.map_blocks(list, range(count)), []) == list(range(count))
    assert select_evenly(7, 3) == [0, 2, 4] and select_evenly(3, 7) == [0, 1, 2]


def test_statistics_are_those_of_all_pixels(tmp_path):
    write_classes(tmp_path / "train", {"a": 3, "b": 3})
    write_classes(tmp_path / "val", {"a": 1, "b": 1}, size=(9, 9))
    part = DataPart(source=str(tmp_path))
    splits = opened(tmp_path)
    pixels = np.stack([np.asarray(splits.train.image(i), dtype=np.float64) / 255 for i in range(6)])
    resolved = choose_defaults(part, splits, CLASSIFICATION)
    assert resolved.mean == pytest.approx(pixels.mean(axis=(0, 1, 2)), abs=1e-6)
    assert resolved.std == pytest.approx(pixels.std(axis=(0, 1, 2)), abs=1e-6)


def png_header(width, height):
    """A PNG of a few bytes whose header promises an image of this size."""
    chunks = {b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT": b""}
    encoded = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(encoded)


def test_an_image_of_too_many_pixels_is_refused_by_name_before_it_is_decoded(tmp_path):
    (tmp_path / "bomb.png").write_bytes(png_header(9000, 8000))
    for reader in (read_image, read_format):
        with pytest.raises(ValueError, match=r"bomb.png .* it has 9000x8000 pixels, and data.max_megapixels=64 allows"):
            reader(str(tmp_path / "bomb.png"))
    (tmp_path / "fits.png").write_bytes(png_header(8000, 8000))
    assert read_format(str(tmp_path / "fits.png")).size == (8000, 8000)
    with pytest.raises(ValueError, match="9000x8000"):
        read_format(png_header(9000, 8000), "row 3 of a.parquet", max_megapixels=71.9)
    assert read_format(png_header(9000, 8000), max_megapixels=72.0).width == 9000


def test_only_the_formats_that_are_named_are_decoded(tmp_path):
    """Others, among them those that start programs, stay closed whatever the file is called."""
    for format in ("TGA", "EPS", "ICO"):
        Image.new("RGB", (16, 16)).save(tmp_path / "a.bin", format=format)
        (tmp_path / "a.bin").rename(tmp_path / "a.png")
        with pytest.raises(ValueError, match="a.png .* it has no known image format .JPEG, PNG"):
            read_image(str(tmp_path / "a.png"))
    for format in FORMATS:
        if format in Image.SAVE:
            Image.new("RGB", (16, 16)).save(tmp_path / "a.png", format=format)
            assert read_image(str(tmp_path / "a.png")).size == (16, 16)


def test_the_settings_say_how_many_pixels_images_and_masks_may_have(tmp_path):
    write_classes(tmp_path / "classes", {"a": 3, "b": 3}, size=(20, 10))
    write_image(tmp_path / "classes" / "a" / "large.png", size=(40, 10))
    write_pairs(tmp_path / "pairs/images", tmp_path / "pairs/masks")
    mask = write_mask(tmp_path / "pairs/masks/1.png", [[0, 1] * 200] * 2)
    few = {"max_megapixels": 0.0003, "val_fraction": 0.3}
    with pytest.raises(ValueError, match=r"large.png .* it has 40x10 pixels, and data.max_megapixels=0.0003 allows"):
        check(opened(tmp_path / "classes", **few).train)
    check(opened(tmp_path / "classes", val_fraction=0.3).train)
    with pytest.raises(ValueError, match=rf"{mask.name} .* it has 400x2 pixels"):
        check(opened_masks(tmp_path / "pairs", **few).train)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("side, size", [(0, (640, 480)), (300, (640, 480)), (277, (320, 240)), (100, (160, 120))])
def test_a_draft_halves_a_jpeg_as_often_as_its_area_allows(tmp_path, orientation, side, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    ramp = np.add.outer(np.arange(480), np.arange(640)) // 5
    picture = Image.fromarray(np.stack([ramp] * 3, axis=2).astype(np.uint8))
    picture.save(tmp_path / "a.jpg", exif=exif, quality=95)
    picture.save(tmp_path / "a.png")
    made, whole = (read_image(str(tmp_path / "a.jpg"), draft_side=draft) for draft in (side, 0))
    assert made.size == (size[::-1] if orientation == 6 else size)
    expected = np.asarray(whole.resize(made.size, Image.Resampling.BOX)).astype(int)
    assert np.abs(np.asarray(made) - expected).max() <= 2  # the mean of the pixels that each stands for
    assert read_image(str(tmp_path / "a.png"), draft_side=side).size == (640, 480)
