"""The segmentation network of FRSKD's paper, and its self-teacher."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from helpers.students import segmenter, settled
from selfdistill.features.extractor import Taps
from selfdistill.models.efficientdet import EfficientDet
from selfdistill.modules.pyramid import PyramidTeacher

CLASSES = 5


def test_the_authors_segmenter_and_self_teacher_have_the_published_parameter_count():
    net = EfficientDet("d0", in_channels=3, num_classes=21, authors=True)
    self_teacher = PyramidTeacher([64] * 6, 21)
    assert sum(p.numel() for part in (net, self_teacher) for p in part.parameters()) == 4_327_590


@pytest.mark.slow
def test_the_authors_oversights_come_with_their_option_alone():
    ours, theirs = (segmenter("efficientdet:d0", authors=authors) for authors in (False, True))
    more = dict(theirs.named_parameters()).keys() - dict(ours.named_parameters()).keys()
    frozen = {name for name, p in theirs.named_parameters() if not p.requires_grad}
    assert frozen == more and all(name.startswith("smooth.") for name in more)
    assert all(p.requires_grad for p in ours.parameters())
    below_zero = torch.full((1, 32, 2, 2), -1.0)
    assert isinstance(ours.backbone.bn1.act, nn.SiLU) and torch.equal(theirs.backbone.bn1.act(below_zero), below_zero)
    for net, settings in ((ours, (1e-5, 0.1)), (theirs, (1e-4, 0.997))):
        norms = [net.conv6[1], net.conv7[1], net.head[1], *(lateral[1] for lateral in net.lateral)]
        assert {(norm.eps, norm.momentum) for norm in norms} == {settings}
        assert all(norm[1].momentum == 0.1 for norm in net.pyramid[0].node_down)


@pytest.mark.slow
def strided(images, conv):
    """As TensorFlow pads: of even sizes nothing before and all behind, otherwise alike on both sides."""
    (kernel, _), (stride, _) = conv.kernel_size, conv.stride
    for axis in (2, 3):
        length = images.shape[axis]
        more = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        pads = [more // 2, more - more // 2]
        images = F.pad(images, [*pads, 0, 0] if axis == 3 else [0, 0, *pads])
    return F.conv2d(images, conv.weight, conv.bias, stride, groups=conv.groups)


def normed(x, norm):
    """In training mode, with the eps that the authors' backbone has."""
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), False, True)
    return (x - mean) / (variance + 1e-3).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]


def inverted_residual(x, block):
    y = x if not hasattr(block, "conv_pwl") else F.silu(normed(strided(x, block.conv_pw), block.bn1))
    norms = (block.bn1, block.bn2) if not hasattr(block, "conv_pwl") else (block.bn2, block.bn3)
    y = F.silu(normed(strided(y, block.conv_dw), norms[0]))
    gate = strided(F.silu(strided(y.mean((2, 3), keepdim=True), block.se.conv_reduce)), block.se.conv_expand)
    last = block.conv_pwl if hasattr(block, "conv_pwl") else block.conv_pw
    y = normed(strided(y * gate.sigmoid(), last), norms[1])
    return x + y if y.shape == x.shape else y


@pytest.mark.parametrize("size", [(64, 64), (50, 66)])
@pytest.mark.slow
def test_the_authors_backbone_is_tensorflows(size):
    net = segmenter("efficientdet:d0", authors=True).double().train()
    images = torch.randn(3, 3, *size, dtype=torch.float64)
    x, expected = normed(strided(images, net.backbone.conv_stem), net.backbone.bn1), []  # without its activation
    mean = strided(images, net.backbone.conv_stem).mean((0, 2, 3))
    for i, stage in enumerate(net.backbone.blocks):
        for j, block in enumerate(stage):
            x = inverted_residual(x, block)
            expected += [x] if (i in (1, 2, 3) and j == 0) else []
    for ours, theirs in zip(net.backbone(images), [*expected, x], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(net.backbone.bn1.running_mean, 0.01 * mean)
    norms = [module for module in net.backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


@pytest.mark.slow
def test_the_papers_segmenter_taps_its_last_pyramid_and_learns_everywhere():
    net = segmenter("efficientdet:d0", image_shape=(3, 93, 121))
    taps = Taps(net, (3, 93, 121))
    assert taps.source == "names" and [tap.name for tap in taps] == net.tap_names
    assert [tap.size for tap in taps] == [(24, 31), (12, 16), (6, 8), (3, 4), (2, 2), (1, 1)]
    assert taps.channels == [64] * 6
    last = []
    net.pyramid[-1].register_forward_hook(lambda module, args, output: last.extend(output))
    logits, features = taps(torch.randn(2, 3, 93, 121))
    assert logits.shape == (2, CLASSES, 93, 121) and all(map(torch.equal, features, last)) and len(last) == 6
    (logits.square().mean() + sum(f.square().mean() for f in features)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.slow
def test_the_papers_segmenter_uses_the_first_blocks_of_its_stages_and_the_last_of_all():
    net = settled(segmenter("efficientdet:d1"))
    source = timm.create_model("efficientnet_b1")
    missing = source.load_state_dict(net.backbone.state_dict(), strict=False)
    assert not missing.unexpected_keys
    caught = {}
    for name in ("blocks.1.0", "blocks.2.0", "blocks.3.0", "blocks.6.1"):
        keep = lambda module, args, output, name=name: caught.update({name: output.clone()})  # noqa: E731
        source.get_submodule(name).register_forward_hook(keep)
    images = torch.randn(1, 3, 64, 64)
    source.eval()(images)
    assert all(map(torch.equal, net.backbone(images), caught.values()))


@pytest.mark.parametrize(("authors", "name"), [(False, "efficientnet_b0"), (True, "tf_efficientnet_b0.aa_in1k")])
def test_the_papers_segmenter_starts_from_timms_weights(monkeypatch, authors, name):
    source = timm.create_model(name)
    create = timm.create_model
    asked = []

    def served(network, *, pretrained, **options):
        asked.append((network, pretrained))
        net = create(network, **options)
        net.load_state_dict(source.state_dict(), strict=False)
        return net

    monkeypatch.setattr(timm, "create_model", served)
    net = segmenter("efficientdet:d0", pretrained=True, authors=authors)
    assert asked == [(name, True)]
    assert torch.equal(net.backbone.blocks[2][0].conv_pw.weight, source.blocks[2][0].conv_pw.weight)
