"""Global average pooling: torch's values and gradients, with the gradient in the map's memory format."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from selfdistill.features.pooling import GlobalAveragePool, global_average

SHAPES = [(4, 8, 8, 8), (3, 16, 5, 7), (2, 6, 1, 1), (1, 1, 4, 3)]


def run(pool, values):
    """What a pooling of rectified values returns, and the gradients behind and before the ReLU."""
    values = values.clone().requires_grad_()
    feature, gradients = F.relu(values), []
    feature.register_hook(gradients.append)
    pooled = pool(feature)
    pooled.flatten(1).backward(torch.linspace(-1, 1, pooled.numel()).reshape(pooled.shape[:2]).to(values.dtype))
    return pooled, gradients[0], values.grad


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("keepdim", [False, True])
def test_values_and_gradients_are_torchs_bit_for_bit(shape, dtype, memory_format, keepdim):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype, memory_format=memory_format)
    ours = run(lambda feature: global_average(feature, keepdim=keepdim), values)
    theirs = run(lambda feature: feature.mean(dim=(2, 3), keepdim=keepdim), values)
    assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    assert ours[1].is_contiguous(memory_format=memory_format)


def test_the_module_is_torchs_own_pooling_outside_of_training():
    feature = torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last)
    pool, plain = GlobalAveragePool(), nn.AdaptiveAvgPool2d(1)
    assert torch.equal(pool(feature), plain(feature))
    exported = [torch.export.export(module.eval(), (feature,)).graph_module.code for module in (pool, plain)]
    assert exported[0] == exported[1]


def test_fx_traces_the_module_in_training_mode(untyped):
    feature = torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last)
    net = nn.Sequential(nn.ReLU(), GlobalAveragePool()).train()
    assert torch.equal(torch.fx.symbolic_trace(net)(feature), net(feature))


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_takes_the_module_as_torchs_own_pooling(untyped):
    feature = torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last)
    scripted = torch.jit.script(nn.Sequential(nn.ReLU(), GlobalAveragePool()))
    assert torch.equal(scripted(feature), F.adaptive_avg_pool2d(feature.relu(), 1))
