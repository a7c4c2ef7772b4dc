"""The backward pass for AMX gives torch's gradients of a depthwise convolution, on any CPU."""

import pytest
import torch
import torch.nn.functional as F

from selfdistill.modules import depthwise
from selfdistill.modules.bifpn import BiFPNc
from selfdistill.modules.depthwise import Depthwise, TiledDepthwise
from selfdistill.modules.processor import ask_for_tiles

SIZES = [(16, 7, 5), (32, 4, 4), (64, 4, 4)]  # channels, height, width; the last has fewer positions than it needs


def map_of(channels, height, width, dtype=torch.float64):
    return torch.randn(3, channels, height, width, dtype=dtype).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("shape", SIZES)
def test_gradients_are_those_of_the_convolution(shape):
    feature, weight = map_of(*shape).requires_grad_(), torch.randn(shape[0], 1, 3, 3, dtype=torch.float64)
    weight.requires_grad_()
    ours, theirs = TiledDepthwise.apply(feature, weight), F.conv2d(feature, weight, padding=1, groups=shape[0])
    aim = torch.randn_like(ours)
    assert torch.equal(ours, theirs)
    for one, other in zip(
        torch.autograd.grad((aim * ours).sum(), (feature, weight)),
        torch.autograd.grad((aim * theirs).sum(), (feature, weight)),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


def test_first_and_second_derivatives_are_right_in_float64():
    feature, weight = map_of(16, 4, 3)[:1].requires_grad_(), torch.randn(16, 1, 3, 3, dtype=torch.float64)
    inputs = (feature, weight.requires_grad_())
    assert torch.autograd.gradcheck(TiledDepthwise.apply, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(TiledDepthwise.apply, inputs, fast_mode=True)


@pytest.mark.parametrize("frozen", ["neither", "weight", "feature"])
def test_a_layer_in_bfloat16_takes_it_where_there_are_tiles(frozen, monkeypatch):
    layer, feature = Depthwise(32), map_of(32, 8, 8, torch.bfloat16).requires_grad_(frozen != "feature")
    layer.weight.requires_grad_(frozen != "weight")
    learning = [each for each in (feature, layer.weight) if each.requires_grad]
    results = []
    for tiles in (True, False):
        monkeypatch.setattr(depthwise, "has_tiles", lambda tiles=tiles: tiles)
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(feature)
        assert ("Tiled" in out.grad_fn.name()) == tiles
        results.append([out, *torch.autograd.grad(out.float().square().sum(), learning)])
    for one, other in zip(*results, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-2 * other.abs().max().item())


def test_a_self_teacher_learns_with_it_as_without(monkeypatch):
    net = BiFPNc([16, 16], 5).to(memory_format=torch.channels_last)
    maps = [map_of(16, size, size, torch.float32) for size in (8, 4)]
    gradients = []
    for tiles in (True, False):
        monkeypatch.setattr(depthwise, "has_tiles", lambda tiles=tiles: tiles)
        with torch.autocast("cpu", torch.bfloat16):
            loss = net(maps)[0].float().logsumexp(1).sum()
        gradients.append(torch.autograd.grad(loss, [*net.parameters()]))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0.1, atol=0.05 * other.abs().max().item() + 1e-6)


@pytest.mark.parametrize("known", [{"amx_bf16": True}, {"amx_bf16": False}, {}])
def test_the_processor_is_asked(known, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    assert ask_for_tiles() == known.get("amx_bf16", False)
