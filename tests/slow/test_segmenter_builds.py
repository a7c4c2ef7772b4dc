"""Segmenters that take a while to build: torchvision's, and transformers."""

import copy

import pytest
import torch
import torchvision
from torchvision.models._api import WeightsEnum

from helpers.networks import CLASSES
from helpers.students import segmenter, settled
from selfdistill.features.extractor import Taps

pytestmark = pytest.mark.slow


def test_a_transformer_is_built_for_the_image_size_and_takes_others():
    net = segmenter("smp:DPT/test_vit", image_shape=(3, 93, 121)).eval()
    assert net.encoder.model.patch_embed.img_size == (96, 128)
    for size in ((93, 121), (50, 70)):
        assert net(torch.randn(1, 3, *size)).shape == (1, CLASSES, *size)


@pytest.mark.parametrize("network", ["deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"])
def test_a_torchvision_segmenter_hands_out_its_scores_alone(network):
    net = settled(segmenter(f"torchvision:{network}", image_shape=(3, 33, 41)))
    twin = torchvision.models.get_model(network, weights=None, weights_backbone=None, num_classes=CLASSES)
    twin.load_state_dict(net.state_dict(), strict=True)
    assert str(net) == str(twin)
    images = torch.randn(2, 3, 33, 41)
    assert torch.equal(net(images), twin.eval()(images)["out"])
    taps = Taps(net, (3, 33, 41))
    assert all(tap.name.startswith("backbone.") for tap in taps)


@pytest.mark.parametrize(
    ("network", "heads"),
    [
        ("deeplabv3_mobilenet_v3_large", {"classifier.4"}),
        ("lraspp_mobilenet_v3_large", {"classifier.low_classifier", "classifier.high_classifier"}),
    ],
)
def test_a_pretrained_torchvision_segmenter_keeps_all_but_its_last_layers(monkeypatch, network, heads):
    aux = {} if network.startswith("lraspp") else {"aux_loss": True}
    source = torchvision.models.get_model(network, weights=None, weights_backbone=None, num_classes=21, **aux)
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, **kwargs: copy.deepcopy(source.state_dict()))
    state = segmenter(f"torchvision:{network}", pretrained=True).state_dict()
    fresh = {key.rpartition(".")[0] for key, value in state.items() if not torch.equal(value, source.state_dict()[key])}
    assert fresh == heads and not any(key.startswith("aux") for key in state)
