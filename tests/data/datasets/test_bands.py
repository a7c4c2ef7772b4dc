"""Files that Pillow has no mode for give their values unchanged."""

import numpy as np
import pytest
from PIL import Image

from helpers.deep_images import encode_npy, write_pages, write_png, write_tiff
from selfdistill.data.datasets.bands import Bands
from selfdistill.data.datasets.image_io import read_format, read_image, read_reduced
from selfdistill.data.datasets.tiff import _list_directories, _read_directory

TYPES = ("uint8", "uint16", "int16", "uint32", "int32", "float32")


def noise(channels: int, dtype: str, size: tuple[int, int] = (21, 34)) -> np.ndarray:
    generator = np.random.default_rng(channels)
    if dtype.startswith("float"):
        return generator.standard_normal((*size, channels)).astype(dtype)
    info = np.iinfo(dtype)
    return generator.integers(max(info.min, -(2**31)), min(info.max, 2**31 - 1), (*size, channels), dtype)


def get_values(path, **options) -> np.ndarray:
    image = read_image(str(path), **options)
    assert read_format(str(path), decode=True, **options) == read_reduced(str(path), side=4, **options)[0]
    assert read_format(str(path), **options).size == image.size
    values = image.values if isinstance(image, Bands) else np.asarray(image)
    return values if values.ndim == 3 else values[:, :, None]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("form", ["strips", "planes", "tiles", "tiles of planes", "big-endian"])
def test_a_tiff_of_many_channels_is_read_whatever_its_form(tmp_path, form, dtype):
    values = noise(12, dtype)
    options = {"order": ">" if form == "big-endian" else "<", "planar": "planes" in form}
    path = write_tiff(tmp_path / "x.tif", values, tile=16 if "tiles" in form else None, **options)
    assert np.array_equal(get_values(path), values)
    assert read_format(str(path)).mode == f"{dtype} x 12"


@pytest.mark.parametrize(
    ("compression", "predictor", "dtype"),
    [(None, 1, "float32"), ("packbits", 1, "uint16"), ("tiff_lzw", 2, "uint16"), ("tiff_lzw", 2, "int32")]
    + [("tiff_lzw", 3, "float32"), ("tiff_adobe_deflate", 2, "uint8"), ("tiff_adobe_deflate", 3, "float32")],
)
def test_differences_that_a_tiff_stores_are_added_up(tmp_path, compression, predictor, dtype):
    values = noise(3 if dtype == "uint8" else 1, dtype)
    options = {} if predictor == 1 else {"tiffinfo": {317: predictor}}
    Image.fromarray(values.squeeze()).save(tmp_path / "x.tif", compression=compression, **options)
    with (tmp_path / "x.tif").open("rb") as file:
        directory = _list_directories(file, 1)[0]
        file.seek(0)
        assert np.array_equal(_read_directory(file.read(), directory), values)


def test_pages_are_channels_where_the_settings_say_so(tmp_path):
    values = noise(5, "uint16")
    path = write_pages(tmp_path / "x.tif", values, compression="tiff_lzw")
    assert np.array_equal(get_values(path, channels=5), values)
    assert np.array_equal(get_values(path), values[:, :, :1])  # the first page alone
    for wrong, found in ((6, "it has 5 pages, and data.channels=6"), (2, "it has more than 2 pages")):
        with pytest.raises(ValueError, match=found):
            read_image(str(path), channels=wrong)


@pytest.mark.parametrize("channels", [3, 4])
def test_a_png_of_16_bits_keeps_its_colors(tmp_path, channels):
    values = noise(channels, "uint16")
    path = write_png(tmp_path / "x.png", values)
    assert np.array_equal(get_values(path), values) and read_format(str(path)).mode == f"{'RGBA'[:channels]};16"


@pytest.mark.parametrize("dtype", [*TYPES, ">u2", "float64", "bool"])
@pytest.mark.parametrize("channels", [1, 3, 12])
def test_an_array_is_an_image(dtype, channels):
    values = noise(channels, "float64") if dtype == "float64" else noise(channels, "uint8").astype(dtype)
    blob = encode_npy(values[:, :, 0] if channels == 1 else values)
    image = read_image(blob)
    read = (image.values if isinstance(image, Bands) else np.asarray(image)).reshape(values.shape)
    assert np.allclose(read, values * 255 if dtype == "bool" else values)
    assert read_format(blob).mode == image.mode and image.size == (34, 21)


@pytest.mark.parametrize(
    ("blob", "message"),
    [
        (encode_npy(np.zeros(5)), r"its array has the shape \(5,\)"),
        (encode_npy(np.zeros((0, 5))), "an image has"),
        (encode_npy(np.zeros((2, 2), complex)), "it holds values of type complex128"),
        (encode_npy(np.array([[None]], dtype=object)), "it holds values of type object"),
        (encode_npy(np.zeros((8, 8, 3)))[:-9], ""),
        (encode_npy(np.full((2, 2), 2**40)), "integers beyond 32 bits"),
        (b"II*\0" + bytes(20), ""),
    ],
)
def test_what_is_no_image_is_refused_in_a_sentence(blob, message):
    with pytest.raises(ValueError, match=f"row 3 cannot be read as an image: .*{message}"):
        read_image(blob, "row 3")


def test_too_many_values_are_refused_before_they_are_read(tmp_path):
    path = write_tiff(tmp_path / "x.tif", noise(12, "uint16", (20, 50)))
    for reader in (read_image, read_format):
        with pytest.raises(ValueError, match="50x20 pixels of 12 channels, and data.max_megapixels=0.002"):
            reader(str(path), max_megapixels=0.002)
    assert read_format(str(path), max_megapixels=0.003)
