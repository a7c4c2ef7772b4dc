"""A self-teacher that computes maps again has the gradients of one that keeps them, and keeps less."""

import contextlib
import copy

import pytest
import torch
from torch import nn

from selfdistill.modules import bifpn, recompute
from selfdistill.modules.bifpn import BiFPNc
from selfdistill.modules.blocks import BatchNorm
from selfdistill.modules.recompute import recompute_maps

CHANNELS, SIZES = [4, 6, 8], [(9, 8), (5, 4), (3, 2)]


def self_teacher(**options):
    """One with norms that scale and shift, so that some channels are mostly positive and others mostly not."""
    net = BiFPNc(CHANNELS, 5, **options).train()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return net.to(memory_format=torch.channels_last)


def features(dtype=torch.float32, requires_grad=True):
    maps = [torch.randn(3, c, *size, dtype=dtype) for c, size in zip(CHANNELS, SIZES, strict=True)]
    return [each.contiguous(memory_format=torch.channels_last).requires_grad_(requires_grad) for each in maps]


def total(outputs):
    logits, refined = outputs
    return logits.square().sum() + sum(each.float().square().mean() for each in refined)


def step(net, maps):
    """The loss, the buffers after the step and all gradients."""
    net = copy.deepcopy(net)
    loss = total(net(maps))
    learning = [each for each in (*maps, *net.parameters()) if each.requires_grad]
    return [loss.detach(), *net.buffers(), *torch.autograd.grad(loss, learning)]


def keep_all(monkeypatch):
    monkeypatch.setattr(bifpn, "recompute_maps", contextlib.nullcontext)


def freeze_norms(net):
    for name, parameter in net.named_parameters():
        parameter.requires_grad_("norm" not in name and parameter.ndim != 1)


def average_all_batches(net):
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = None


def replace_norms(make):
    def replace(net):
        for name, norm in list(net.named_modules()):
            if isinstance(norm, nn.BatchNorm2d):
                net.set_submodule(name, make(norm.num_features))

    return replace


CHANGES = {
    "as built": lambda net: None,
    "eval mode": lambda net: net.eval(),
    "frozen": lambda net: net.requires_grad_(False),
    "frozen norms": freeze_norms,
    "frozen convolutions": lambda net: [p.requires_grad_(False) for p in net.parameters() if p.ndim == 4],
    "momentum None": average_all_batches,
    "no scale": replace_norms(lambda c: BatchNorm(c, affine=False)),
    "no running statistics": replace_norms(lambda c: BatchNorm(c, track_running_stats=False)),
    "torch's own norms": replace_norms(nn.BatchNorm2d),
    "group norms": replace_norms(lambda c: nn.GroupNorm(2, c)),
}


@pytest.mark.parametrize("precision", [None, torch.bfloat16])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_step_is_that_of_a_self_teacher_which_keeps_its_maps(change, precision, monkeypatch):
    net, maps = self_teacher(), features()
    change(net)
    with torch.autocast("cpu", precision, enabled=precision is not None):
        results = step(net, maps)
        keep_all(monkeypatch)
        expected = step(net, maps)
    for ours, theirs in zip(results, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-2 if precision else 1e-5, atol=2e-2 if precision else 1e-5)


@pytest.mark.parametrize("options", [{}, {"depth": 1}, {"preactivation": True}, {"output": "pixel"}], ids=str)
def test_every_form_of_it_has_the_same_step(options, monkeypatch):
    net, maps = self_teacher(**options), features()
    results = step(net, maps)
    keep_all(monkeypatch)
    for ours, theirs in zip(results, step(net, maps), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("preactivation", [False, True])
def test_relus_out_of_place_change_nothing(preactivation, monkeypatch):
    net, maps = self_teacher(preactivation=preactivation), features()
    in_place = step(net, maps)
    monkeypatch.setattr(recompute, "slow_in_place", lambda x: True)
    for ours, theirs in zip(step(net, maps), in_place, strict=True):
        assert torch.equal(ours, theirs)


def test_features_without_gradients_are_no_obstacle(monkeypatch):
    net, maps = self_teacher(), features(requires_grad=False)
    results = step(net, maps)
    keep_all(monkeypatch)
    for ours, theirs in zip(results, step(net, maps), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("training", [True, False])
def test_first_and_second_derivatives_are_right_in_float64(training):
    net, maps = self_teacher().double().train(training), features(torch.float64)

    def outputs(*given):
        logits, refined = net([each.clone() for each in given])
        return logits, *refined

    assert torch.autograd.gradcheck(outputs, maps, fast_mode=True)
    assert torch.autograd.gradgradcheck(outputs, maps, fast_mode=True)


def test_a_graph_that_is_walked_twice_gives_the_same_gradients():
    net, maps = self_teacher(), features()
    loss = total(net(maps))
    first = torch.autograd.grad(loss, [*net.parameters()], retain_graph=True)
    torch.autograd.grad(loss, [net.fc.weight], retain_graph=True)
    for one, other in zip(first, torch.autograd.grad(loss, [*net.parameters()]), strict=True):
        assert torch.equal(one, other)


def test_backward_inside_autocast_computes_in_the_types_of_the_forward_pass(monkeypatch):
    net, maps = self_teacher(), features()

    def gradients():
        loss = total(net(maps))
        with torch.autocast("cpu", torch.bfloat16):
            return torch.autograd.grad(loss, maps)

    results = gradients()
    keep_all(monkeypatch)
    for ours, theirs in zip(results, gradients(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_less_is_kept(monkeypatch):
    """Bytes that live after the forward pass and not before, on channels that make maps the largest part."""
    net = BiFPNc([32, 32], 5).train()
    maps = [torch.randn(8, 32, size, size, requires_grad=True) for size in (16, 8)]

    def count_kept():
        options = {"activities": [torch.profiler.ProfilerActivity.CPU], "profile_memory": True}
        with torch.profiler.profile(**options) as profile:
            kept = net(maps)
        return sum(e.nbytes() for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"), kept

    less, _ = count_kept()
    keep_all(monkeypatch)
    assert less < 0.7 * count_kept()[0]


def test_what_is_changed_in_place_before_the_backward_pass_is_refused():
    net, maps = self_teacher(), features()
    loss = total(net(maps))
    with torch.no_grad():
        net.passes[0].node_down[0][0].weight.add_(1)
    with pytest.raises(RuntimeError, match="changed in place after the forward pass"):
        loss.backward()


def test_torch_func_is_refused():
    net, maps = self_teacher(), features(requires_grad=False)
    with pytest.raises(RuntimeError, match="saved tensor hooks"):
        torch.func.grad(lambda deepest: net([*maps[:2], deepest])[0].sum())(maps[2])


def test_outside_and_without_gradients_nothing_is_remembered():
    with torch.no_grad(), recompute_maps() as remembered:
        assert remembered is None
