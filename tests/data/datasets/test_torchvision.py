"""torchvision's sets."""

import struct
from pathlib import Path

import numpy as np
import pytest

from helpers.images import opened
from helpers.tasks import CLASSIFICATION
from selfdistill.config.recipe import DataPart
from selfdistill.data import choose_defaults, open_splits


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())


@pytest.mark.parametrize(("name", "mirrorable"), [("MNIST", False), ("FashionMNIST", True)])
def test_a_torchvision_set_opens_from_its_files(tmp_path, name, mirrorable):
    dice = np.random.default_rng(0)
    for prefix, count in (("train", 40), ("t10k", 10)):
        pixels = dice.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(tmp_path / name / "raw" / f"{prefix}-images-idx3-ubyte", pixels)
        write_idx(tmp_path / name / "raw" / f"{prefix}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8) % 10)
    part = DataPart(source=f"torchvision:{name}", root=str(tmp_path))
    splits = open_splits(part, CLASSIFICATION)
    assert (len(splits.train), splits.val, len(splits.test)) == (40, None, 10)
    assert np.array_equal(np.asarray(splits.test.image(9)), pixels[9]) and len(splits.train.classes) == 10
    assert splits.train.mirrorable == mirrorable
    assert choose_defaults(part, splits, CLASSIFICATION).augment == (["crop", "flip"] if mirrorable else ["crop"])


NO_FILES = ("CIFAR10", "CIFAR100", "MNIST", "SVHN", "STL10", "Flowers102", "Food101", "DTD", "EuroSAT", "Imagenette")


@pytest.mark.parametrize("name", NO_FILES)
def test_torchvision_sets_download_only_when_asked(tmp_path, name):
    with pytest.raises(ValueError, match=f"files of torchvision:{name} are not in {tmp_path}.*data.download=true"):
        opened(f"torchvision:{name}", root=str(tmp_path))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_every_torchvision_set_that_is_offered_exists():
    import torchvision.datasets

    from selfdistill.data.datasets.torchvision import CHARACTERS, PICTURES

    assert all(hasattr(torchvision.datasets, name) for name in (*CHARACTERS, *PICTURES))


def test_a_misspelt_torchvision_set_gets_a_suggestion():
    with pytest.raises(ValueError, match="did you mean 'torchvision:CIFAR100"):
        opened("torchvision:CIFAR-100")
