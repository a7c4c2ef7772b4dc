"""Students as `build_student` builds or refuses them."""

import pytest
import torch
from torch import nn

from helpers.networks import CLASSES
from selfdistill.models import build_student


def refused_student(name: str, **request) -> str:
    """The one sentence in which `build_student` refuses a request."""
    with pytest.raises(ValueError) as caught:
        build_student(name, **request)
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 500
    return sentence


def segmenter(name, image_shape=(3, 64, 96), **options):
    torch.manual_seed(0)
    return build_student(name, num_classes=CLASSES, image_shape=image_shape, output="pixel", **options)


def settled(net):
    """The net in eval mode with batch norms that are not the identity."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias, std=0.2)
    return net.eval()
