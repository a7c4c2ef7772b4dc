"""Images, encoded images and folders of masks that several files of tests read."""

from pathlib import Path

import pytest

from helpers.images import encoded, write_image
from helpers.mask_files import write_pairs


@pytest.fixture
def images(tmp_path) -> Path:
    for number in range(8):
        write_image(tmp_path / "images" / f"{number}.png", number)
    return tmp_path


@pytest.fixture
def features():
    datasets = pytest.importorskip("datasets")
    return datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee"])})


@pytest.fixture
def blobs(images) -> list[dict]:
    return [encoded(images / "images" / f"{i}.png") for i in range(8)]


@pytest.fixture
def mask_folder(tmp_path) -> Path:
    """Five images with masks of the values 0, 1, 2."""
    write_pairs(tmp_path / "images", tmp_path / "masks", 5)
    return tmp_path
