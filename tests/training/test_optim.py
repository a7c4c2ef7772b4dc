"""Optimizers and schedules of timm, as a recipe asks for them."""

import logging

import pytest
import torch
from torch import nn

from helpers.runs import recipe
from selfdistill.config.recipe import OptimPart
from selfdistill.training.optim import count_steps, create_ema, create_optimizer, create_schedule


@pytest.mark.parametrize(
    ("changes", "scheduled", "last"),
    [({"epochs": 3}, 12, 12), ({"epochs": 3, "max_steps": 5}, 12, 5), ({"epochs": None, "max_steps": 5}, 5, 5)],
)
def test_max_steps_stops_early_beside_epochs_and_sets_the_length_alone(tmp_path, changes, scheduled, last):
    assert count_steps(recipe(tmp_path, **changes), 4) == (scheduled, last)


def rates(steps=100, **changes):
    optim = OptimPart(**{"lr": 1.0, **changes})
    schedule = create_schedule(create_optimizer(nn.Linear(2, 2), optim), optim, steps)
    found = []
    for step in range(steps):
        schedule.step_update(step)
        found.append(schedule.optimizer.param_groups[0]["lr"])
    return found


def test_the_step_schedule_is_the_paper_s():
    found = rates(schedule="step")
    assert found[49] == 1 and found[50] == pytest.approx(0.1) and found[75] == pytest.approx(0.01)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0.0), (2, 0.5)])
def test_a_cosine_of_one_step_is_the_rate_itself_without_a_line_of_timm(steps, warmup, monkeypatch):
    lines = []
    monkeypatch.setattr(logging.Logger, "handle", lambda logger, record: lines.append(record))
    optimizer = create_optimizer(nn.Linear(1, 1), OptimPart(lr=0.5))
    schedule = create_schedule(optimizer, OptimPart(lr=0.5, warmup=warmup), steps)
    schedule.step_update(steps - 1)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5) and not lines


def test_cosine_falls_to_its_end_and_warm_up_rises():
    found = rates(schedule="cosine", warmup=0.1)
    assert found[0] == pytest.approx(0.01) and found[10] == pytest.approx(1.0) and found[-1] < 0.001
    assert all(after > before for before, after in zip(found[:10], found[1:11], strict=True))


def test_decay_spares_vectors_where_it_is_for_weights():
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    groups = create_optimizer(net, OptimPart(decay="weights", weight_decay=0.1)).param_groups
    assert {group["weight_decay"]: len(group["params"]) for group in groups} == {0.0: 3, 0.1: 1}
    (only,) = create_optimizer(net, OptimPart(decay="all", weight_decay=0.1)).param_groups
    assert only["weight_decay"] == 0.1 and not only["nesterov"] and len(only["params"]) == 4


def test_an_unknown_optimizer_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="not an optimizer of timm; did you mean 'sgd'"):
        create_optimizer(nn.Linear(1, 1), OptimPart(name="sgdd"))


def test_a_moving_average_keeps_its_decay_once_it_is_warm():
    student = nn.Linear(2, 2)
    average = create_ema(student, OptimPart(ema=0.9))
    before = student.weight.detach().clone()
    with torch.no_grad():
        student.weight += 1
    average.update(student, step=10**6)
    torch.testing.assert_close(average.module.weight, before + 0.1)
    assert create_ema(student, OptimPart()) is None


def test_frozen_parameters_are_not_given_to_the_optimizer():
    net = nn.Linear(2, 2)
    net.bias.requires_grad_(False)
    (group,) = create_optimizer(net, OptimPart(decay="all")).param_groups
    assert group["params"] == [net.weight]
