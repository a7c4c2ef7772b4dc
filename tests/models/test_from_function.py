"""The user's own networks: what their function is given, and what is wrong with it."""

import sys

import pytest

from helpers.students import refused_student
from selfdistill.models import build_student

NETWORKS = """
from torch import nn

WIDTH = 4

def small(num_classes, in_channels=3, width=WIDTH):
    head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)
    return nn.Sequential(nn.Conv2d(in_channels, width, 3), *head)

def anything(**settings):
    assert sorted(settings) == ["depth", "num_classes"], sorted(settings)
    return small(settings["num_classes"])

def shaped(num_classes, image_shape, pretrained=False):
    return small(num_classes, image_shape[0], width=16 if pretrained else 8)

class Headless(nn.Module):
    def __init__(self, num_classes):
        super().__init__()

    def forward(self, images):
        return images, images

def broken(num_classes):
    return 1 / 0

def number(num_classes):
    return num_classes

def classless(width):
    return small(width)

def demanding(num_classes, width):
    return small(num_classes, width=width)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A module of the user's own in the working directory."""
    (tmp_path / "own_networks.py").write_text(NETWORKS)
    (tmp_path / "half_installed.py").write_text("import no_such_package")
    (tmp_path / "flawed.py").write_text("def")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    yield
    assert sys.path == before
    for module in ("own_networks", "half_installed", "flawed"):
        sys.modules.pop(module, None)


def test_a_function_of_ones_own_is_given_what_it_names(own):
    shape = (1, 16, 16)
    net = build_student("own_networks:small", num_classes=5, image_shape=shape, width=6)
    assert (net[0].in_channels, net[0].out_channels, net[-1].out_features) == (1, 6, 5)
    assert build_student("own_networks:shaped", num_classes=5, image_shape=shape)[0].out_channels == 8
    assert build_student("own_networks:shaped", num_classes=5, image_shape=shape, pretrained=True)[0].out_channels == 16
    build_student("own_networks:anything", num_classes=5, image_shape=(3, 16, 16), depth=1)


OWN_ERRORS = [
    ("own_network:small", {}, "did you mean 'own_networks'?"),
    ("tim:resnet18", {}, "did you mean 'timm'?"),
    ("torch.nnn:Linear", {}, "did you mean 'torch.nn'?"),
    ("own_networks.deeper:small", {}, "no module 'own_networks.deeper'"),
    ("half_installed:net", {}, "No module named 'no_such_package'"),
    ("flawed:net", {}, "SyntaxError"),
    ("own_networks:smal", {}, "did you mean 'own_networks:small'?"),
    ("own_networks:WIDTH", {}, "has no function 'WIDTH'"),
    ("own_networks:small", {"widht": 3}, "did you mean 'width'?"),
    ("own_networks:small", {"in_channels": 3}, "follows from the data"),
    ("own_networks:small", {"pretrained": True}, "does not take pretrained="),
    ("own_networks:classless", {}, "must take num_classes="),
    ("own_networks:demanding", {}, "needs a value for 'width'"),
    ("own_networks:broken", {}, "ZeroDivisionError"),
    ("own_networks:number", {}, "must return a torch.nn.Module, not a int"),
    ("own_networks:Headless", {}, "must return a tensor of scores, not a tuple"),
    ("own_networks:anything", {"depth": 1, "wrong": 2}, "AssertionError"),
]


def refuse(name, image_shape=(3, 16, 16), **options):
    return refused_student(name, num_classes=10, image_shape=image_shape, **options)


@pytest.mark.parametrize(("name", "options", "said"), OWN_ERRORS)
def test_what_is_wrong_with_ones_own_network_is_said_in_one_sentence(own, name, options, said):
    assert said in refuse(name, **options)
