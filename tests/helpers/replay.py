"""Students whose feature maps and scores are given."""

import pytest
import torch
from torch import nn

from helpers.networks import CLASSES
from selfdistill import Batch, Task, create_method


class Replay(nn.Module):
    """A student whose stages emit stored maps and whose scores are stored, as leaves that collect gradients."""

    def __init__(self, maps, logits):
        super().__init__()
        self.stages = nn.ModuleList(Leaf(each) for each in maps)
        self.scores = nn.Parameter(logits)

    def forward(self, images):
        for stage in self.stages:
            stage(images)
        return self.scores if len(images) == len(self.scores) else self.scores[:1].expand(len(images), -1)


class Leaf(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = nn.Parameter(value)

    def forward(self, images):
        return self.value[: len(images)] * 1.0


SHAPES = {  # of the maps, and the images that they are of
    "halving": ([(4, 16, 16), (6, 8, 8), (8, 4, 4)], (16, 16)),
    "fewer channels": ([(8, 15, 15), (3, 7, 7), (5, 3, 3), (2, 3, 3)], (15, 15)),
    "oblong": ([(2, 12, 18), (4, 6, 9), (4, 3, 5)], (12, 18)),
    "one size": ([(6, 4, 4)] * 4, (16, 16)),
}
every_shape = pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)


def replayed(name, shapes, rows=3, **settings):
    """The method, in float64, on a student whose rectified maps are parameters of these shapes; and a batch."""
    shapes, size = shapes
    maps = [torch.randn(rows, *shape, dtype=torch.float64).relu() for shape in shapes]
    student = Replay(maps, torch.randn(rows, CLASSES, dtype=torch.float64)).double()
    task = Task("classification", CLASSES, (3, *size))
    method = create_method(name, student, task, taps=[f"stages.{i}" for i in range(len(maps))], **settings).double()
    return method.train(), Batch(torch.zeros(rows, 3, *size, dtype=torch.float64), torch.arange(rows) % CLASSES)


def arrays(method):
    """Maps and scores of a `replayed` method's student."""
    maps = [stage.value.detach().numpy() for stage in method.student.stages]
    return method.student.scores.detach().numpy(), maps
