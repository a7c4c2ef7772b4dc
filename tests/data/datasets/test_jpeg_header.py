"""Headers of JPEGs are what Pillow reads."""

import io

import numpy as np
import pytest
from PIL import Image

from selfdistill.data.datasets import image_io
from selfdistill.data.datasets.image_io import read_format
from selfdistill.data.datasets.jpeg_header import read_jpeg_header

PIXELS = np.random.default_rng(0).integers(0, 256, (21, 34, 3), dtype=np.uint8)
TURNED = Image.Exif()
TURNED[0x0112] = 6

VARIANTS = {
    "plain": {},
    "progressive": {"progressive": True},
    "optimized": {"optimize": True, "quality": 30},
    "restarts": {"restart_marker_blocks": 2},
    "comment": {"comment": b"\xff\xd8 made by hand"},
    "resolution": {"dpi": (72, 72)},
    "profile": {"icc_profile": b"x" * 5000},
    "turned": {"exif": TURNED.tobytes()},
}


def encode(mode: str = "RGB", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


def read(data: bytes, **options):
    """The format, or the error in words."""
    try:
        return read_format(data, **options)
    except ValueError as error:
        return str(error)


@pytest.fixture
def read_by_pillow(monkeypatch):
    def read_slowly(data: bytes, **options):
        with monkeypatch.context() as patch:
            patch.setattr(image_io, "read_jpeg_header", lambda data: None)
            return read(data, **options)

    return read_slowly


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_headers_are_those_that_pillow_reads(read_by_pillow, mode, variant):
    data = encode(mode, **VARIANTS[variant])
    assert read(data) == read_by_pillow(data)
    assert read(data, max_megapixels=0.0001) == read_by_pillow(data, max_megapixels=0.0001)
    is_plain = mode != "CMYK" and variant not in ("profile", "turned")
    assert (read_jpeg_header(data) is not None) == is_plain


@pytest.mark.parametrize("variant", ["plain", "progressive", "restarts"])
def test_a_damaged_header_is_read_as_pillow_reads_it(read_by_pillow, variant):
    data = encode(**VARIANTS[variant])
    end = data.index(b"\xff\xda") + 16
    generator = np.random.default_rng(1)
    cut = [data[:length] for length in range(0, end, 7)]
    damaged = [bytearray(data) for _ in range(300)]
    for each in damaged:
        each[generator.integers(2, end)] = generator.choice([0, 1, 3, 64, 0xC0, 0xC4, 0xD8, 0xDA, 0xE1, 0xFF])
    for each in [*cut, *map(bytes, damaged)]:
        assert read(each) == read_by_pillow(each)
