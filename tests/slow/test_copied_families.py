"""Copies of the remaining stages of networks that they were not made for."""

import pytest
import torch

from helpers.branches import branches
from helpers.networks import CLASSES
from selfdistill.models import build_student

pytestmark = pytest.mark.slow
FAMILIES = [
    "timm:convnext_atto",
    "timm:densenet121",
    "timm:efficientnet_b0",
    "timm:ghostnet_050",
    "timm:mobilenetv3_small_050",
    "timm:nf_regnet_b0",
    "timm:regnetx_002",
    "timm:repvgg_a0",
    "timm:resnext26ts",
    "timm:resnetv2_18",
    "torchvision:mobilenet_v2",
    "torchvision:shufflenet_v2_x0_5",
]


@pytest.mark.parametrize("name", FAMILIES)
def test_other_networks_are_copied_without_a_change(name):
    student = build_student(name, num_classes=CLASSES, image_shape=(3, 64, 64))
    taps, made = branches(student, shape=(3, 64, 64))
    _, features = taps(torch.randn(2, 3, 64, 64))
    for branch, feature in zip(made, features, strict=True):
        scores, deepest = branch.with_map(feature.detach())
        assert scores.shape == (2, 4 * CLASSES) and deepest.shape == features[-1].shape
        assert not torch.equal(scores[0], scores[1])
        scores.square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in branch.parameters() if p.requires_grad)


def test_a_network_with_a_class_token_is_refused_in_one_sentence():
    student = build_student("timm:vit_tiny_patch16_224", num_classes=CLASSES, image_shape=(3, 64, 64))
    with pytest.raises(ValueError, match="VisionTransformer cannot be run from 'blocks.2' on, .*take a CNN"):
        branches(student, shape=(3, 64, 64))
