"""HSAKD's three methods: the published numbers, frozen networks and peers."""

import copy
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.batches import small_batch, small_task
from helpers.expected_terms import EXPECTED, Outputs
from helpers.methods import agree, small_method
from helpers.networks import SmallResNet, small_student
from selfdistill import Task, create_method
from selfdistill.features.extractor import Taps, stage_ends
from selfdistill.methods import find_method
from selfdistill.models import build_student
from selfdistill.modules.branches import remaining_stages

STAGES = ["stage1", "stage2", "stage3"]
GOLDEN = Path(__file__).parents[1] / "golden/hsakd_student.npz"


def made(name, *, teacher=None, rows=3, **settings):
    """The method in float64 and a batch."""
    kind, task = find_method(name), small_task(side=8)
    if teacher is None:
        method = small_method(kind, task, **settings)
    else:
        method = kind(small_student(task), task, teacher=teacher, **settings).train()
    batch = small_batch(kind, task, rows=rows)
    return method.double(), batch._replace(images=batch.images.double())


@pytest.mark.slow
def test_a_teacher_with_fewer_branches_teaches_with_its_shallowest_more_than_once():
    teacher, _ = made("hsakd_teacher", taps=STAGES[1:])
    method, batch = made("hsakd", teacher=teacher)
    assert (len(method.branches), len(teacher.branches)) == (3, 2)
    agree(method(batch).losses, EXPECTED["hsakd"](method, Outputs(method, batch)))


class Stored(nn.Module):
    """Gives stored scores for any input, as a leaf that collects gradients."""

    def __init__(self, value):
        super().__init__()
        self.value = nn.Parameter(value)

    def forward(self, images):
        return self.value * 1.0


class StoredTaps(Taps):
    """Stored scores, and maps that nobody reads."""

    def __init__(self, logits, levels):
        self.logits, self.levels = Stored(logits), levels

    def __call__(self, images):
        return self.logits(images), [images] * self.levels


def replay(method, logits, joint):
    method._taps = StoredTaps(logits, len(joint))
    method.branches = nn.ModuleList(map(Stored, joint))


@pytest.mark.slow
def test_the_student_has_the_published_losses_and_gradients():
    with np.load(GOLDEN) as archive:
        values = {key: torch.from_numpy(np.array(archive[key])) for key in archive.files}
    task = Task("classification", 10, (3, 8, 8))
    teacher = create_method("hsakd_teacher", SmallResNet(10), task)
    temperature = float(values["hyper.temperature"])
    method = create_method("hsakd", SmallResNet(10), task, teacher=teacher, temperature=temperature)
    for each, who in ((method, "student"), (teacher, "teacher")):
        replay(each, values[f"{who}_logits"], [values[f"{who}_aux_logits.{level}"] for level in range(3)])
    images = torch.zeros(len(values["target"]), 3, 8, 8)
    step = method(small_batch(type(method), task)._replace(images=images, target=values["target"]))
    for term, published in {"task": "ce", "kd": "kl_final", "joint": "kl_aux"}.items():
        close(step.losses[term], values[f"loss.{published}"])
    close(step.loss, values["loss.total"])
    step.loss.backward()
    close(method.taps.logits.value.grad, values["grad.student_logits"])
    for level, branch in enumerate(method.branches):
        close(branch.value.grad, values[f"grad.student_aux_logits.{level}"])
    assert teacher.taps.logits.value.grad is None


def close(ours, published):
    torch.testing.assert_close(ours, published, rtol=1e-9, atol=1e-12)


def test_every_branch_sends_its_gradient_to_the_stages_before_it():
    method, batch = made("hsakd_teacher")
    _, joint = method.scores(batch.images)
    for level, scores in enumerate(joint):
        method.zero_grad(set_to_none=True)
        scores.sum().backward(retain_graph=True)
        grown = [getattr(method.student, stage).conv1.weight.grad is not None for stage in STAGES]
        assert grown == [stage <= level for stage in range(3)]


def test_a_frozen_network_stays_as_it_came_while_its_branches_learn():
    method, batch = made("hsakd_teacher", joint=False)
    before = copy.deepcopy(method.state_dict())
    method.train()
    assert not any(module.training for module in method.student.modules())
    assert all(module.training for module in method.branches.modules())
    assert not any(parameter.requires_grad for parameter in method.student.parameters())
    assert all(parameter.requires_grad for parameter in method.branches.parameters())
    step = method(batch)
    assert step.losses.keys() == {"joint"} and not step.logits.requires_grad
    step.loss.backward()
    with torch.no_grad():
        for parameter in method.branches.parameters():
            parameter -= 0.1 * parameter.grad
    moved = {key.split(".")[0] for key, value in method.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {"branches"}


@pytest.mark.slow
def test_the_peer_is_the_students_architecture_with_weights_of_its_own():
    method, _ = made("hsakd_online")
    own, peer = method.student.state_dict(), method.peer.state_dict()
    assert own.keys() == peer.keys()
    for key, value in own.items():
        if value.ndim > 1:
            assert not torch.equal(peer[key], value)
            torch.testing.assert_close(peer[key].std(), value.std(), rtol=0.5, atol=0.0)
    assert not {p.data_ptr() for p in method.peer.parameters()} & {p.data_ptr() for p in method.student.parameters()}


@pytest.mark.parametrize(("name", "count"), [("wrn-16-2", 1_928_304), ("resnet20", 762_992)])
@pytest.mark.slow
def test_branches_have_the_authors_parameter_counts(name, count):
    student = build_student(f"cifar:{name}", num_classes=100, image_shape=(3, 32, 32))
    taps = Taps(student, (3, 32, 32), stage_ends(student))
    branches = [remaining_stages(taps, level, 400) for level in range(3)]
    assert sum(parameter.numel() for branch in branches for parameter in branch.parameters()) == count


class Operations(TorchDispatchMode):
    """Counts operations by name, and collects those beside convolutions that read maps of several memory formats."""

    def __init__(self):
        super().__init__()
        self.calls, self.mixed = Counter(), []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.calls[name] += 1
        maps = [arg for arg in args if isinstance(arg, torch.Tensor) and arg.ndim == 4 and min(arg.shape[1:]) > 1]
        if "convolution" not in name and len({lies_channels_last(map_) for map_ in maps}) > 1:
            self.mixed.append((name, *(map_.shape for map_ in maps)))
        return func(*args, **(kwargs or {}))


def lies_channels_last(map_):
    return map_.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("name", ["resnet8", "wrn-10-1"])
def test_a_step_runs_each_layer_once_and_every_gradient_lies_as_its_map_does(name):
    task = Task("classification", 4, (3, 16, 16))
    student, teacher = (build_student(f"cifar:{name}", num_classes=4, image_shape=task.image_shape) for _ in range(2))
    teacher = create_method("hsakd_teacher", teacher, task)
    method = create_method("hsakd", student, task, teacher=teacher).to(memory_format=torch.channels_last).train()
    batch = small_batch(type(method), task, rows=4)
    with Operations() as operations:
        method(batch).loss.backward()
    layers = [*method.student.modules(), *method.branches.modules()]
    convolutions = sum(isinstance(layer, nn.Conv2d) for layer in layers)
    norms = sum(isinstance(layer, nn.BatchNorm2d) for layer in layers)
    expected = {"convolution": 2 * convolutions, "convolution_backward": convolutions}  # the teacher is as large
    expected |= {"native_batch_norm": 2 * norms, "native_batch_norm_backward": norms, "clone": 0}
    assert {operation: operations.calls[operation] for operation in expected} == expected
    assert operations.mixed == []
