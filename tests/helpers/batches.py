"""Tasks and batches for small networks."""

import torch

from helpers.networks import CLASSES
from selfdistill import Batch, Task
from selfdistill.method import Method


def small_task(kind: str = "classification", side: int = 16) -> Task:
    return Task(kind, CLASSES, (3, side, side), num_examples=32)


def small_batch(kind: type[Method], task: Task, rows: int = 8) -> Batch:
    """As many images, views and positives as the method asks for; every class is there.

    With several labels an image has none, one or two of them.
    """
    draw = torch.Generator().manual_seed(2)
    shape = task.image_shape
    images = torch.randn(rows, *shape, generator=draw)
    positions = task.positions
    blocks = [-(-side // 4) for side in positions]  # as fine as the small student's deepest map
    target = torch.randint(task.num_classes, (rows, *blocks), generator=draw)
    for axis, side in enumerate(positions, 1):
        target = target.repeat_interleave(4, axis).narrow(axis, 0, side)
    target[:CLASSES] = torch.arange(CLASSES).reshape(-1, *[1] * len(positions))[:rows]
    if positions:
        target[0, 0] = task.ignore_index
    if task.target == "multi_label":
        target = torch.nn.functional.one_hot(target, task.num_classes)
        target |= target.roll(1, 0)
        target[0] = 0
    return Batch(
        images,
        target,
        index=torch.arange(rows),
        views=torch.randn(rows, kind.views, *shape, generator=draw) if kind.views else None,
        positives=torch.randn(rows, kind.positives, *shape, generator=draw) if kind.positives else None,
    )


def double_batch(kind: type[Method], task: Task, rows: int = 5) -> Batch:
    """`small_batch` in float64."""
    parts = small_batch(kind, task, rows)
    return Batch(*(part.double() if part is not None and part.is_floating_point() else part for part in parts))
