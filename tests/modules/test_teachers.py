"""Teachers that are whole networks: frozen ones, moving averages, and the levels that they teach."""

import pytest
import torch
from torch import nn

from helpers.batches import small_task
from helpers.networks import small_student
from selfdistill.features.extractor import Taps
from selfdistill.modules.teachers import Frozen, MovingAverage, teaching_levels


def test_a_frozen_network_stays_in_eval_mode_and_gets_no_gradient():
    teacher = Frozen(nn.Sequential(nn.Linear(2, 2), nn.Dropout()))
    teacher.train()
    assert not any(module.training for module in teacher.net.modules())
    assert not teacher(torch.randn(3, 2, requires_grad=True)).requires_grad


def test_a_moving_average_moves_a_share_of_the_way():
    network = nn.Linear(2, 2)
    average = MovingAverage(network)
    before = network.weight.detach().clone()
    with torch.no_grad():
        network.weight.add_(1.0)
    average.update(network, 0.75)
    torch.testing.assert_close(average.net.weight, before + 0.25)
    assert not any(parameter.requires_grad for parameter in average.parameters())


def test_a_moving_average_has_none_of_the_hooks_of_a_tapped_student():
    student = small_student(small_task())
    taps = Taps(student, (3, 16, 16))
    assert any(module._forward_hooks for module in student.modules()) and len(taps) == 3
    assert not any(module._forward_hooks for module in MovingAverage(student).modules())


@pytest.mark.parametrize(("levels", "teacher_levels"), [(3, 3), (2, 4), (4, 2), (1, 1)])
def test_the_deepest_levels_meet(levels, teacher_levels):
    taught_by = teaching_levels(levels, teacher_levels)
    assert taught_by[-1] == teacher_levels - 1 and len(taught_by) == levels and taught_by == sorted(taught_by)
