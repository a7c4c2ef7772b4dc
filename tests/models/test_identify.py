"""What a network is called that somebody else has built."""

import timm
import torch
import torchvision
from torch import nn

from helpers.given import TinyNet
from selfdistill.models import build_student, identify

SHAPE = (3, 32, 32)


def name(network, num_classes=5, image_shape=SHAPE):
    origin = identify(network, num_classes=num_classes, image_shape=image_shape)
    return origin and origin.name


def test_networks_of_the_libraries_are_told_by_what_they_compute():
    before = torch.get_rng_state()
    network = timm.create_model("resnet10t", num_classes=5)
    torch.set_rng_state(before)
    assert name(network) == "timm:resnet10t" and network.training
    assert torch.equal(torch.get_rng_state(), before)
    assert name(torchvision.models.shufflenet_v2_x0_5(num_classes=5)) == "torchvision:shufflenet_v2_x0_5"


def test_what_build_student_built_keeps_its_options():
    network = build_student("cifar:wrn-10-1", num_classes=5, image_shape=SHAPE)
    assert name(network) == "cifar:wrn-10-1"


def test_a_network_that_was_changed_since_is_another():
    network = timm.create_model("resnet10t", num_classes=5)
    network.act1 = nn.Tanh()
    assert name(network) is None
    assert name(TinyNet(5), image_shape=(1, 8, 8)) is None
