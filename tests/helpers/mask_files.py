"""Writers of images with masks, and what was read of them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from helpers.tasks import SEGMENTATION
from selfdistill.config.recipe import DataPart
from selfdistill.data import open_splits
from selfdistill.data.datasets.base import LabeledDataset
from selfdistill.data.datasets.masks import MaskDataset
from selfdistill.data.split import Splits

VALUES = [[0, 1, 2], [2, 1, 0]]


RED, BLUE = (255, 0, 0), (0, 0, 255)


def write_photo(path: Path, seed: int = 0, size: tuple[int, int] = (3, 2), **how) -> Path:
    """A small noise image of `size` (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **how)
    return path


def write_mask(path: Path, values: list = VALUES, kind: type = np.uint8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(values, dtype=kind)).save(path)
    return path


def write_pairs(images: Path, masks: Path, count: int = 4, *, values: list = VALUES, end: str = ".png") -> None:
    for number in range(count):
        write_photo(images / f"{number}.jpg", number)
        write_mask(masks / f"{number}{end}", values)


def opened_masks(source: Path | str, **settings) -> Splits:
    return open_splits(DataPart(source=str(source), **settings), SEGMENTATION)


def masks_of(rows: LabeledDataset | None) -> list[str]:
    assert isinstance(rows, MaskDataset)
    return [Path(rows.mask_name(i)).name for i in range(len(rows))]


def the_mask(rows: LabeledDataset, i: int = 0) -> list[list[int]]:
    assert isinstance(rows, MaskDataset)
    mask = rows.mask(i)
    assert mask.dtype == torch.int64
    return mask.tolist()
