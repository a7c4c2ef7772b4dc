"""OFD against its slow reference, where it finds maps before their ReLU and margins, and what its terms teach."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from helpers.batches import small_batch, small_task
from helpers.expected_terms import weights
from helpers.networks import channel_norm, small_student
from reference import frskd as plain
from reference import ofd as slow
from selfdistill import create_method, losses
from selfdistill.features.before_relu import BeforeReLU
from selfdistill.features.extractor import Taps
from selfdistill.features.probe import DryRun
from selfdistill.methods.ofd import OFD, last_norm
from selfdistill.models import build_student


def away_from_the_start(net):
    """Batch norms as if trained."""
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if value.ndim == 1:
                value.add_(0.3 * torch.rand_like(value) if name.endswith("var") else 0.3 * torch.randn_like(value))
    return net


def made(**settings):
    """The method in float64, and a batch."""
    task = small_task(side=8)
    nets = [away_from_the_start(small_student(task, seed=seed)).double() for seed in (1, 4)]
    method = OFD(nets[0], task, teacher=nets[1], **settings).double().train()
    away_from_the_start(method.connectors)
    batch = small_batch(OFD, task, rows=5)
    return method, batch._replace(images=batch.images.double())


def margins(teacher):
    norms = [teacher.get_submodule(f"stage{i}.norm2") for i in (1, 2, 3)]
    pairs = [zip(norm.weight.tolist(), norm.bias.tolist(), strict=True) for norm in norms]
    return [[plain.margin(scale, shift) for scale, shift in each] for each in pairs]


@pytest.mark.parametrize("weight", [1e-3, 0.5])
def test_ofd_agrees_with_the_reference(weight):
    method, batch = made(weight=weight)
    own = slow.sums_before_relu(batch.images.numpy(), weights(method.student), plain.batch_norm)
    aims = slow.sums_before_relu(batch.images.numpy(), weights(method.teacher.net), slow.norm_at_rest)
    distance = plain.overhaul_loss(own, aims, weights(method.connectors), margins(method.teacher.net))
    with torch.no_grad():
        scores = copy.deepcopy(method.student)(batch.images)
    expected = {"task": plain.cross_entropy(scores.tolist(), batch.target.tolist()), "feature": weight * distance}
    assert {term: value.item() for term, value in method(batch).losses.items()} == pytest.approx(expected, rel=1e-9)


def test_levels_are_matched_from_the_deepest_and_resampled_to_the_teachers_size():
    method, batch = made(taps=["stage1", "stage3"], weight=1.0)
    own = slow.sums_before_relu(batch.images.numpy(), weights(method.student), plain.batch_norm)[::2]
    aims = slow.sums_before_relu(batch.images.numpy(), weights(method.teacher.net), slow.norm_at_rest)[1:]
    total, connectors = 0.0, weights(method.connectors)
    for level, (feature, aim, margin) in enumerate(zip(own, aims, margins(method.teacher.net)[1:], strict=True)):
        connected = slow.at_size(plain.connected(feature, connectors / level, False), aim.shape[2:])
        goal = np.maximum(aim, np.reshape(margin, (1, -1, 1, 1)))
        counted = (connected - goal) ** 2 * ((connected > goal) | (goal > 0))
        total += counted.sum() / len(feature) * (0.5 if level == 0 else 1.0)
    assert method(batch).losses["feature"].item() == pytest.approx(total, rel=1e-9)


def test_margins_are_those_of_the_trained_teacher_and_stay():
    method, batch = made()
    expected = [margin for level in margins(method.teacher.net) for margin in level]
    torch.testing.assert_close(method.margins, torch.tensor(expected, dtype=torch.float64))
    before = method.margins.clone()
    method(batch).loss.backward()
    assert torch.equal(method.margins, before) and not method.margins.requires_grad
    assert "margins" in method.state_dict()


def before_relu(net, side):
    taps = Taps(net, (3, side, side))
    return taps, BeforeReLU(taps, DryRun(net, taps.image_shape).outputs)


@pytest.mark.parametrize("name", ["cifar:resnet8", "cifar:wrn-16-1", "cifar:vgg8", "timm:resnet10t"])
def test_maps_are_found_as_they_are_before_their_relu(name):
    net = away_from_the_start(build_student(name, num_classes=3, image_shape=(3, 32, 32)).eval())
    taps, maps = before_relu(net, 32)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        _, given, found = maps(images)
        for after, same, before in zip(taps(images)[1], given, found, strict=True):
            assert before.min() < 0 and torch.equal(before.relu(), after) and torch.equal(same, after)


def test_a_map_that_no_relu_ends_is_taken_as_it_is():
    net = small_student(small_task()).eval()
    taps = Taps(net, (3, 16, 16), ["stage2.shortcut", "stage3"])
    maps = BeforeReLU(taps, DryRun(net, taps.image_shape).outputs)
    images = torch.randn(2, 3, 16, 16)
    (bare, rectified), (same, sums) = taps(images)[1], maps(images)[2]
    assert torch.equal(bare, same) and bare.min() < 0
    assert torch.equal(sums.relu(), rectified) and sums.min() < 0


def test_the_students_scores_and_its_later_layers_see_the_rectified_maps():
    net = small_student(small_task()).eval()
    images = torch.randn(2, 3, 16, 16)
    before = net(images)
    assert torch.equal(before_relu(net, 16)[1](images)[0], before) and torch.equal(net(images), before)


class Projected(nn.Module):
    """One residual block whose shortcut has a batch norm of its own, which runs last."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.downsample = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        y = self.norm(self.conv(x))
        y += self.downsample(x)
        return self.relu(y)


def test_the_margin_is_that_of_the_residual_branch():
    net = nn.Sequential(Projected(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    (tap,) = Taps(net, (3, 8, 8), ["0"])
    assert last_norm(DryRun(net, (3, 8, 8)).outputs, tap) is net[0].norm


def test_a_teacher_without_batch_norms_is_refused():
    task = small_task()
    with pytest.raises(ValueError, match="and none of 8 channels runs before 'stage1'; give it a teacher whose"):
        create_method("ofd", small_student(task), task, teacher=small_student(task, norm=channel_norm))


def test_a_student_without_batch_norms_learns():
    task = small_task()
    method = create_method("ofd", small_student(task, norm=channel_norm), task, teacher=small_student(task))
    assert method(small_batch(OFD, task)).loss.isfinite()


def test_a_student_below_a_negative_goal_is_left_in_peace():
    own = torch.full((1, 1, 1, 2), -5.0, requires_grad=True)
    losses.overhaul(own, torch.tensor([[[[-9.0, 1.0]]]]), torch.tensor([-0.5])).backward()
    assert own.grad.flatten().tolist() == [0.0, -12.0]
