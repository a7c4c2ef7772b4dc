"""Images with masks, in memory."""

import numpy as np
import torch
from PIL import Image

from selfdistill.data import LabeledDataset, Sample

VOID = -100


def noise(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def blocks(height: int, width: int) -> torch.Tensor:
    """A mask of three classes and void."""
    labels = torch.tensor([0, 1, 2, VOID]).repeat_interleave(height * width // 4 + 1)
    return labels[: height * width].view(height, width)


class Drawn(LabeledDataset):
    """Noise images with masks, in memory, of the given (height, width)."""

    def __init__(self, *sizes: tuple[int, int], mirrorable: bool = True) -> None:
        self.images = [noise(*size, seed=number) for number, size in enumerate(sizes)]
        self.masks = [blocks(*size) for size in sizes]
        self.classes, self.labels = ("sky", "road", "car"), torch.zeros(len(sizes), dtype=torch.int64)
        self.mirrorable = mirrorable

    def source(self, i):
        return self.images[i]

    def name(self, i):
        return f"scene {i}"

    def __getitem__(self, i):
        return Sample(self.images[i], self.masks[i])

    def settings(self):
        return {"classes": ["sky", "road", "car", "other"], "void": [3, 255]}
