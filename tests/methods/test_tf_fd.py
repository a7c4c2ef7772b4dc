"""Tf-FD against the authors' numbers and the slow reference, and who learns from whom."""

import numpy as np
import pytest
import torch

from helpers.golden import close, read
from helpers.networks import CLASSES
from helpers.replay import SHAPES, Replay, replayed
from reference import tfd as slow
from selfdistill import Batch, Task, create_method
from selfdistill.methods import find_method
from selfdistill.methods.tf_fd import saliency


def test_tf_fd_has_the_authors_terms_and_gradients():
    values = read("tffd_three_stages")
    maps = [values[f"feature.{i}"] for i in range(3)]
    student = Replay(maps, torch.zeros(len(maps[0]), CLASSES)).double()
    weights = {name: float(values[f"hyper.{name}"]) for name in ("lambda_inter", "lambda_intra")}
    task, names = Task("classification", CLASSES, (3, 16, 16)), [f"stages.{i}" for i in range(3)]
    method = create_method("tf_fd", student, task, taps=names, **weights).double()
    batch = Batch(torch.zeros(len(maps[0]), 3, 16, 16, dtype=torch.float64), torch.arange(len(maps[0])))
    terms = method(batch, progress=0.5).losses
    close(terms["inter"], weights["lambda_inter"] * values["loss.inter"])
    close(terms["intra"], weights["lambda_intra"] * values["loss.intra"])
    total = terms["inter"] + terms["intra"]
    close(total, values["loss.total"])
    total.backward()
    for i, stage in enumerate(student.stages):
        close(stage.value.grad, values[f"grad.feature.{i}"])


def test_the_default_weights_are_those_of_the_authors_command():
    values, defaults = read("tffd_three_stages"), find_method("tf_fd").defaults()
    assert all(defaults[name] == values[f"hyper.{name}"] for name in ("lambda_inter", "lambda_intra"))


def test_the_authors_weight_of_an_epoch_is_reached_at_its_end():
    method, _ = replayed("tf_fd", SHAPES["halving"])
    for epoch in (1, 7, 20, 21, 240):
        end = torch.tensor(epoch / 240, dtype=torch.float64)
        assert method.growth(end).item() == pytest.approx(min(1, epoch / 20), rel=1e-12)


@pytest.mark.parametrize("detach_salient", [False, True])
def test_which_half_of_the_channels_learns(detach_salient):
    method, batch = replayed("tf_fd", SHAPES["fewer channels"], detach_salient=detach_salient, warmup=0.0)
    method(batch).losses["intra"].backward()
    for stage in method.student.stages:
        learns = stage.value.grad.abs().sum(dim=(0, 2, 3)) > 0
        pairs = slow.halves(stage.value.detach().numpy())
        expected = {channel for salient, redundant in pairs for channel in (salient, redundant)[detach_salient:]}
        assert {channel for channel in range(len(learns)) if learns[channel]} == expected
    assert method.student.scores.grad is None


def test_saliency_does_not_depend_on_scale_but_on_how_evenly_a_map_is_active():
    even, peak = torch.ones(4, 4), torch.zeros(4, 4)
    peak[1, 2] = 1.0
    feature = torch.stack([even, peak, 0 * even]).expand(2, 3, 4, 4)
    scaled = feature * torch.tensor([[0.1, 50.0, 1.0], [3.0, 0.2, 1.0]]).view(2, 3, 1, 1)
    for each in (feature, scaled):
        torch.testing.assert_close(saliency(each), torch.tensor([1 / 4, 1 / 16, 0.0]))


def test_order_of_the_channels_does_not_matter_within_a_map():
    method, batch = replayed("tf_fd", SHAPES["oblong"], warmup=0.0)
    before = method(batch).losses["intra"]
    with torch.no_grad():
        for stage in method.student.stages:
            stage.value.copy_(stage.value.flip(1))
    torch.testing.assert_close(method(batch).losses["intra"], before)


def test_a_map_of_one_channel_has_no_halves():
    shapes = ([(4, 8, 8), (1, 4, 4)], (8, 8))
    with pytest.raises(ValueError, match="TfFD compares two halves of the channels, and 'stages.1' has 1; set"):
        replayed("tf_fd", shapes)
    method, batch = replayed("tf_fd", shapes, lambda_intra=0.0, warmup=0.0)
    assert np.isfinite(method(batch).loss.item())
