"""Attention transfer against the slow reference, with teachers of other depths and sizes."""

import pytest
import torch

from helpers.batches import small_batch, small_task
from helpers.methods import small_method
from helpers.networks import CLASSES, small_student
from helpers.replay import Replay, agree
from reference.at_sad import at_loss
from reference.frskd import cross_entropy
from selfdistill import Batch, Task, create_method
from selfdistill.methods import find_method
from selfdistill.methods.at import attention_distance


def numbers(features):
    return [feature.detach().numpy() for feature in features]


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
    own = numbers(stage.value for stage in method.student.stages)
    expected = {
        "task": cross_entropy(method.student.scores.detach().numpy(), batch.target.tolist()),
        "attention": 500 * at_loss(own, numbers(teacher_features)),
    }
    agree(method(batch).losses, expected)


def test_at_of_a_network_agrees_with_the_reference():
    kind, task = find_method("at"), small_task(side=8)
    method, batch = small_method(kind, task).double(), small_batch(kind, task, rows=5)
    batch = batch._replace(images=batch.images.double())
    with torch.no_grad():
        logits, features = method.taps(batch.images)
        _, teacher_features = method.ask_teacher(batch.images)
    expected = {
        "task": cross_entropy(logits.numpy(), batch.target.tolist()),
        "attention": 1000 * at_loss(numbers(features), numbers(teacher_features)),
    }
    agree(method(batch).losses, expected)


def test_attention_teaches_every_map_and_no_scores():
    method, batch = made([(4, 16, 16), (6, 8, 8)], [(5, 16, 16), (9, 8, 8)], (16, 16))
    method(batch).losses["attention"].backward()
    assert all(stage.value.grad.count_nonzero() for stage in method.student.stages)
    assert method.student.scores.grad is None
    assert all(p.grad is None for p in method.teacher.parameters())


def test_distance_is_of_where_and_not_of_how_much_or_in_which_channel():
    feature = torch.rand(2, 4, 6, 6)
    assert attention_distance(feature, 3 * feature.flip(1)) < 1e-12
    coarse = feature[:, :, ::2, ::2].contiguous()
    fine = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert attention_distance(fine, coarse) < 1e-12
    assert attention_distance(coarse, fine) < 1e-12


def test_a_teacher_of_other_classes_may_teach_attention():
    task, other = small_task(), small_task()._replace(num_classes=CLASSES + 2)
    method = create_method("at", small_student(task), task, teacher=small_student(other))
    assert method(small_batch(find_method("at"), task)).loss.isfinite()
