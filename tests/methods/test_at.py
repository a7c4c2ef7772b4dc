"""Attention transfer against the slow reference, with teachers of other depths and sizes."""

import pytest
import torch

from helpers.expected_terms import EXPECTED, Outputs
from helpers.methods import agree
from helpers.networks import CLASSES
from helpers.replay import Replay
from selfdistill import Batch, Task, create_method
from selfdistill.methods.at import attention_distance


def made(student_maps, teacher_maps, size, **settings):
    """AT in float64 on a student with maps of these shapes, whose teacher has one layer of convolution per map."""
    maps = [torch.randn(3, *shape, dtype=torch.float64) for shape in student_maps]
    student = Replay(maps, torch.randn(3, CLASSES, dtype=torch.float64)).double()
    task = Task("classification", CLASSES, (3, *size))
    names = [f"stages.{i}" for i in range(len(maps))]
    method = create_method("at", student, task, taps=names, teacher=Ladder(teacher_maps), **settings).double()
    return method, Batch(torch.randn(3, 3, *size, dtype=torch.float64), torch.arange(3))


class Ladder(torch.nn.Module):
    """Convolutions with ReLUs that give maps of the shapes asked for, and scores from the last."""

    def __init__(self, shapes):
        super().__init__()
        widths = [3, *(shape[0] for shape in shapes)]
        self.convs = torch.nn.ModuleList(torch.nn.Conv2d(a, b, 1) for a, b in zip(widths, widths[1:], strict=False))
        self.pools = torch.nn.ModuleList(torch.nn.AdaptiveAvgPool2d(shape[1:]) for shape in shapes)
        self.relus = torch.nn.ModuleList(torch.nn.ReLU() for _ in shapes)
        self.fc = torch.nn.Linear(widths[-1], CLASSES)

    def forward(self, x):
        for conv, pool, relu in zip(self.convs, self.pools, self.relus, strict=True):
            x = relu(conv(pool(x)))
        return self.fc(x.mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("student_maps", "teacher_maps", "size"),
    [
        ([(4, 16, 16), (6, 8, 8), (8, 4, 4)], [(5, 16, 16), (9, 8, 8), (11, 4, 4)], (16, 16)),
        ([(4, 16, 16), (6, 8, 8)], [(5, 16, 16), (9, 8, 8), (11, 4, 4)], (16, 16)),
        ([(4, 16, 16), (6, 8, 8), (8, 4, 4), (8, 2, 2)], [(5, 16, 16), (11, 4, 4)], (16, 16)),
        ([(4, 15, 15), (6, 7, 7)], [(4, 8, 8), (6, 8, 8)], (15, 15)),
    ],
    ids=["equal", "deeper teacher", "shallower teacher", "other sizes"],
)
def test_at_agrees_with_the_reference(student_maps, teacher_maps, size):
    method, batch = made(student_maps, teacher_maps, size, beta=500.0)
    _, teacher_features = method.ask_teacher(batch.images)
    assert [feature.shape[1:] for feature in teacher_features] == teacher_maps
    agree(method(batch).losses, EXPECTED["at"](method, Outputs(method, batch)))


def test_distance_is_of_where_and_not_of_how_much_or_in_which_channel():
    feature = torch.rand(2, 4, 6, 6)
    assert attention_distance(feature, 3 * feature.flip(1)) < 1e-12
    coarse = feature[:, :, ::2, ::2].contiguous()
    fine = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert attention_distance(fine, coarse) < 1e-12
    assert attention_distance(coarse, fine) < 1e-12
