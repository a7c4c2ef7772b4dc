"""Rows with labels, dealt to processes."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from selfdistill import evaluate
from selfdistill.tasks import find_task

ROWS = (7, 1, 0)
DENSE = {"num_classes": 6, "kind": "segmentation"}
CASES = [(kind, rows) for kind in ("classification", "segmentation") for rows in ROWS[:2]]


class Labelled(NamedTuple):
    images: Tensor
    target: Tensor


def batches(rows: int, rank: int = 0, world: int = 1) -> list[Labelled]:
    """This process's share of the rows, in batches of two."""
    random = torch.Generator().manual_seed(0)
    images = 2 * torch.randn(rows, 6, 1, 1, generator=random)
    target = torch.randint(6, (rows,), generator=random)
    own = slice(rank, None, world)
    pairs = zip(images[own].split(2), target[own].split(2), strict=True)
    return [Labelled(*pair) for pair in pairs if len(pair[0])]


def dense_batches(images: int, rank: int = 0, world: int = 1) -> list[Labelled]:
    """This process's share of the images, one at a time; a few pixels are void, and class 5 is never labelled."""
    random = torch.Generator().manual_seed(0)
    shown = 2 * torch.randn(images, 6, 5, 7, generator=random)
    target = torch.randint(5, (images, 10, 14), generator=random)
    target[:, :2, :3] = -100
    pairs = zip(shown.split(1), target.split(1), strict=True)
    return [Labelled(*pair) for pair in list(pairs)[rank::world]]


def kept(kind: str, rows: int, rank: int = 0, world: int = 1) -> list[Tensor]:
    """What is kept of each image of all processes, and the labels of the sample, sorted."""
    collector = find_task(kind).outcomes(6, -100)
    network, dealt = (nn.Flatten(), batches) if kind == "classification" else (nn.Identity(), dense_batches)
    evaluate(network, dealt(rows, rank, world), num_classes=6, kind=kind, collector=collector)
    return [*collector.compute(), collector.sample().target.sort().values]
