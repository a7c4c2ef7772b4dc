"""FRSKD's pyramid for segmentation against its equations."""

import re

import pytest
import torch
import torch.nn.functional as F

from helpers.students import settled
from selfdistill.modules.pyramid import PyramidLayer, PyramidTeacher

CLASSES = 5


@pytest.mark.parametrize("bottom_up", [True, False])
def test_a_pyramid_layer_is_its_equations(bottom_up):
    sizes = [(12, 17), (6, 9), (3, 5), (2, 3), (1, 2), (1, 1)]
    maps = {i: torch.randn(2, 4, *size) for i, size in enumerate(sizes, start=2)}
    layer = settled(PyramidLayer(4, 6, bottom_up=bottom_up))

    def n(node, x):
        conv, norm = node[0], node[1]
        y = x * conv.weight.view(1, -1, 1, 1) + conv.bias.view(1, -1, 1, 1)
        y = (y - norm.running_mean.view(1, -1, 1, 1)) / (norm.running_var.view(1, -1, 1, 1) + norm.eps).sqrt()
        return (y * norm.weight.view(1, -1, 1, 1) + norm.bias.view(1, -1, 1, 1)).clamp(min=0)

    def to(x, i, mode):
        flags = {"align_corners": False} if mode == "bilinear" else {}
        return F.interpolate(x, size=sizes[i - 2], mode=mode, **flags)

    up = {7: n(layer.node_down[5], maps[7])}
    for i in (6, 5, 4, 3, 2):
        up[i] = n(layer.node_down[i - 2], maps[i] + to(up[i + 1], i, "bilinear"))
    out = dict(up)
    if bottom_up:
        for i in (3, 4, 5, 6, 7):
            out[i] = n(layer.node_up[i - 3], maps[i] + up[i] + to(out[i - 1], i, "nearest"))
    for i, refined in enumerate(layer(list(maps.values())), start=2):
        torch.testing.assert_close(refined, out[i])
    assert len(layer.outputs()) == 6 and not set(layer.outputs()) - {name for name, _ in layer.named_modules()}


def test_the_pyramid_self_teacher_refines_every_map_and_scores_the_finest():
    features = [torch.randn(2, 8, *size, requires_grad=True) for size in ((9, 13), (5, 7), (3, 4))]
    teacher = PyramidTeacher([8, 8, 8], CLASSES)
    logits, refined = teacher(features)
    assert logits.shape == (2, CLASSES, 9, 13) and teacher.channels == [8, 8, 8]
    assert [r.shape for r in refined] == [f.shape for f in features]
    (logits.square().mean() + sum(r.square().mean() for r in refined)).backward()
    assert all(p.grad is not None for p in [*features, *teacher.parameters()])
    with pytest.raises(ValueError, match=re.escape("equally many channels, as efficientdet:d0 has, not [8, 16]")):
        PyramidTeacher([8, 16], CLASSES)
