"""FRSKD and its relatives: margins, levels, connectors."""

import pytest
import torch

from helpers.batches import small_task
from helpers.methods import method_and_batch
from helpers.networks import CLASSES, small_student
from selfdistill import Batch, Task, create_method
from selfdistill.methods import find_method
from selfdistill.methods.frskd import connector


def test_margin_follows_the_self_teachers_norms_only_where_it_is_current():
    for margin, moves in (("initial", False), ("current", True)):
        method, _ = method_and_batch("frskd", feature_loss="overhaul", margin=margin)
        before = method.margins()
        with torch.no_grad():
            for norm in method.self_teacher.norms():
                norm.bias += 0.5
        assert all(torch.equal(one, other) != moves for one, other in zip(before, method.margins(), strict=True))
        assert not any(each.requires_grad for each in method.margins())
    assert all(each.shape == (channels,) for each, channels in zip(before, method.self_teacher.channels, strict=True))


def test_deep_supervision_is_frskd_without_its_imitations():
    steps = []
    for name, settings in (("deep_supervision", {}), ("frskd", {"alpha": 0.0, "beta": 0.0})):
        method, batch = method_and_batch(name, width=1, depth=3, **settings)
        step = method(batch, torch.tensor(0.4))
        step.loss.backward()
        gradients = {each: parameter.grad for each, parameter in method.named_parameters()}
        steps.append((step.losses, gradients))
    for ours, theirs in zip(*steps, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    assert steps[0][0].keys() == {"task", "teacher"}


def test_deep_supervision_has_none_of_the_settings_of_what_it_leaves_out():
    kept = {"self_teacher_net", "depth", "width", "num_channels", "repeat", "levels"}
    assert find_method("deep_supervision").hyperparameters().keys() == kept
    assert find_method("frskd").hyperparameters().keys() > kept


def test_levels_are_the_deepest_maps():
    method, _ = method_and_batch("frskd", levels=2)
    assert method.self_teacher.channels == [24, 32]


def test_named_taps_are_the_maps_that_are_used():
    task = small_task()
    method = create_method("frskd", small_student(task), task, taps=["stage1", "stage3"], width=1)
    assert [tap.name for tap in method.taps] == ["stage1", "stage3"]
    assert method.self_teacher.channels == [8, 16]


def test_connectors_start_with_the_authors_spread():
    torch.manual_seed(0)
    rectified, raw = connector(64, 128, True), connector(64, 128, False)
    assert rectified[0].weight.std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.05)
    features = torch.randn(2, 64, 3, 3)
    assert rectified(features).min() == 0 and raw(features).min() < 0


@pytest.mark.parametrize("size", [(17, 17), (11, 16), (9, 7)])
def test_frskd_takes_images_of_any_size(size):
    task = Task("classification", CLASSES, (3, *size))
    method = create_method("frskd", small_student(task), task)
    step = method(Batch(torch.randn(4, 3, *size), torch.arange(4)))
    assert step.loss.isfinite()
