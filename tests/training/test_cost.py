"""The arithmetic of a training step, counted."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.batches import small_task
from helpers.methods import small_method
from helpers.runs import recipe, train
from selfdistill.methods import create_method, find_method
from selfdistill.training.callbacks import Callback
from selfdistill.training.cost import StepCost


class Slowdown(Callback):
    """Collects what callbacks are shown of the cost."""

    def __init__(self, seen, name):
        self.seen, self.name = seen, name

    def on_step(self, state):
        self.seen.setdefault(self.name, []).append(state.slowdown)


def counted(function, student=None):
    cost = StepCost(student or nn.Identity())
    with cost:
        function()
    return cost.total / 3


def test_multiply_adds_are_those_of_the_definitions():
    images = torch.zeros(2, 4, 5, 6)
    assert counted(lambda: F.conv2d(images, torch.zeros(8, 4, 3, 3), padding=1)) == 2 * 5 * 6 * 8 * 4 * 9
    assert counted(lambda: F.conv2d(images, torch.zeros(8, 2, 1, 1), groups=2, stride=2)) == 2 * 3 * 3 * 8 * 2
    assert counted(lambda: F.conv_transpose2d(images, torch.zeros(4, 7, 2, 2), stride=2)) == 2 * 5 * 6 * 4 * 7 * 4
    assert counted(lambda: nn.Linear(6, 9)(images)) == 2 * 4 * 5 * 6 * 9
    assert counted(lambda: images @ torch.zeros(6, 3)) == 2 * 4 * 5 * 6 * 3
    attended = torch.zeros(2, 3, 7, 5)
    assert counted(lambda: F.scaled_dot_product_attention(attended, attended, attended)) == 2 * (2 * 3 * 7 * 5 * 7)
    assert counted(lambda: images + images) == 0


def test_what_has_no_gradient_costs_a_third_and_the_students_first_pass_is_the_measure():
    student, other = nn.Linear(10, 10), nn.Linear(10, 20)
    cost = StepCost(student)
    with cost:
        student(torch.zeros(4, 10))  # of two views of two images
        with torch.no_grad():
            other(torch.zeros(2, 10))
        student(torch.zeros(2, 10))
    assert cost.slowdown(2) == pytest.approx((3 * 4 * 100 + 2 * 200 + 3 * 2 * 100) / (3 * 2 * 100))
    before = cost.total
    student(torch.zeros(4, 10))  # neither counted nor hooked any more
    assert cost.total == before and not student._forward_hooks and not student._forward_pre_hooks


def test_a_run_counts_its_first_step_only_and_the_students_own_costs_one(tmp_path):
    seen = {}
    for name in ("baseline", "frskd"):
        method, _, _ = train(recipe(tmp_path / name, method=name, max_steps=2), Slowdown(seen, name))
        assert not any(hook for module in method.student.modules() for hook in module._forward_pre_hooks.values())
    assert seen["baseline"] == [1.0, 1.0]
    assert seen["frskd"][0] == seen["frskd"][1] > 1.5


def test_settings_that_are_said_to_be_cheaper_are():
    task = small_task("classification")
    for name in ("frskd", "one"):
        method = small_method(find_method(name), task)
        for setting in method.list_cheaper_settings():
            key, _, value = setting.partition("=")
            cheaper = create_method(name, method.student, task, **{key: int(value)})
            sizes = [sum(p.numel() for p in m.parameters()) for m in (method, cheaper)]
            assert sizes[1] < sizes[0], setting
        assert method.list_cheaper_settings()
