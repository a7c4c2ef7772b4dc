"""Tf-FD against the authors' numbers and the slow reference, and who learns from whom."""

import numpy as np
import pytest
import torch

from helpers.batches import small_batch, small_task
from helpers.golden import close, read
from helpers.methods import small_method
from helpers.networks import CLASSES, small_student
from helpers.replay import SHAPES, Replay, agree, arrays, every_shape, replayed
from reference import tfd as slow
from reference.frskd import soft_label_loss
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
    values, defaults = read("tffd_three_stages"), find_method("tf_fd").hyperparameters()
    assert all(defaults[name] == values[f"hyper.{name}"] for name in ("lambda_inter", "lambda_intra"))


@every_shape
@pytest.mark.parametrize("detach_salient", [False, True])
def test_tf_fd_agrees_with_the_reference(shapes, detach_salient):
    weights = {"lambda_inter": 0.3, "lambda_intra": 0.7, "epsilon": 0.1}
    method, batch = replayed("tf_fd", shapes, detach_salient=detach_salient, **weights)
    expected = slow.tf_fd_terms(*arrays(method), batch.target.tolist(), growth=1.0, **weights)
    agree(method(batch, progress=0.5).losses, expected)


def test_kd_tf_fd_agrees_with_the_reference():
    kind, task = find_method("kd_tf_fd"), small_task(side=8)
    method = small_method(kind, task, alpha=0.3, beta=0.6, temperature=3.0, epsilon=0.1).double()
    batch = small_batch(kind, task, rows=5)
    batch = batch._replace(images=batch.images.double())
    with torch.no_grad():
        logits, features = method.taps(batch.images)
        teacher_logits = method.teacher.net.eval()(batch.images)
    logits, features = logits.numpy(), [feature.numpy() for feature in features]
    weights = {"lambda_inter": 0.0005, "lambda_intra": 0.0008, "epsilon": 0.1}
    expected = slow.tf_fd_terms(logits, features, batch.target.tolist(), growth=1.0, **weights)
    expected["task"] *= 0.3
    expected["kd"] = 0.6 * soft_label_loss(logits, teacher_logits.numpy(), 3.0)
    agree(method(batch, progress=0.5).losses, expected)


@pytest.mark.parametrize(("progress", "growth"), [(0.0, 0.0), (0.05, 0.25), (0.1, 0.5), (0.2, 1.0), (0.9, 1.0)])
def test_both_terms_grow_over_the_warmup_and_the_task_does_not(progress, growth):
    method, batch = replayed("tf_fd", SHAPES["halving"], warmup=0.2)
    full = method(batch, torch.tensor(1.0, dtype=torch.float64)).losses
    now = method(batch, torch.tensor(progress, dtype=torch.float64)).losses
    torch.testing.assert_close(now["task"], full["task"])
    for term in ("inter", "intra"):
        torch.testing.assert_close(now[term], growth * full[term])


def test_the_authors_weight_of_an_epoch_is_reached_at_its_end():
    method, _ = replayed("tf_fd", SHAPES["halving"])
    for epoch in (1, 7, 20, 21, 240):
        end = torch.tensor(epoch / 240, dtype=torch.float64)
        assert method.growth(end).item() == pytest.approx(min(1, epoch / 20), rel=1e-12)


def test_without_warmup_the_weights_are_constant():
    method, batch = replayed("tf_fd", SHAPES["halving"], warmup=0.0)
    first, last = (method(batch, progress).losses for progress in (0.0, 0.9))
    assert all(torch.equal(value, last[term]) for term, value in first.items()) and first["inter"] > 0


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


def test_only_the_shallower_map_of_a_pair_learns():
    method, batch = replayed("tf_fd", SHAPES["halving"], warmup=0.0)
    method(batch).losses["inter"].backward()
    grads = [stage.value.grad for stage in method.student.stages]
    assert grads[0].count_nonzero() and grads[1].count_nonzero() and grads[2] is None


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


@pytest.mark.parametrize(("weight", "gone"), [("lambda_inter", "inter"), ("lambda_intra", "intra")])
def test_a_term_that_weighs_nothing_is_not_there(weight, gone):
    method, batch = replayed("tf_fd", SHAPES["halving"], **{weight: 0.0})
    assert method(batch).losses.keys() == {"task", "inter", "intra"} - {gone}


@pytest.mark.parametrize(
    ("settings", "idle"),
    [
        ({"lambda_inter": 0.0, "lambda_intra": 0.0, "warmup": 0.3}, "warmup"),
        ({"lambda_intra": 0.0, "detach_salient": True}, "detach_salient"),
    ],
    ids=str,
)
def test_settings_without_effect_are_refused(settings, idle):
    with pytest.raises(ValueError, match=f"TfFD: {idle}=.* has no effect"):
        create_method("tf_fd", small_student(small_task()), small_task(), **settings)


def test_a_map_of_one_channel_has_no_halves():
    shapes = ([(4, 8, 8), (1, 4, 4)], (8, 8))
    with pytest.raises(ValueError, match="TfFD compares two halves of the channels, and 'stages.1' has 1; set"):
        replayed("tf_fd", shapes)
    method, batch = replayed("tf_fd", shapes, lambda_intra=0.0, warmup=0.0)
    assert np.isfinite(method(batch).loss.item())
