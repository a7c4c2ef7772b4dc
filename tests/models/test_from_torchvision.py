"""torchvision's networks: untouched, for other classes and channels, with pretrained weights."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models._api import WeightsEnum

from helpers.students import refused_student, settled
from selfdistill.models import build_student


def refuse(name, image_shape=(3, 16, 16), **options):
    return refused_student(name, num_classes=10, image_shape=image_shape, **options)


@pytest.mark.parametrize(
    ("network", "options"), [("resnet18", {"zero_init_residual": True}), ("squeezenet1_1", {"dropout": 0.1})]
)
def test_a_torchvision_student_is_an_untouched_torchvision_network(network, options):
    torch.manual_seed(0)
    twin = torchvision.models.get_model(network, num_classes=5, **options)
    torch.manual_seed(0)
    net = build_student(f"torchvision:{network}", num_classes=5, image_shape=(3, 32, 32), **options)
    assert list(net.state_dict()) == list(twin.state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(net.eval()(images), twin.eval()(images))
    assert str(net) == str(twin)


@pytest.mark.parametrize("channels", [1, 4])
def test_torchvision_networks_take_other_channels(channels):
    net = build_student("torchvision:mobilenet_v3_small", num_classes=5, image_shape=(channels, 32, 32))
    first, usual = net.features[0][0], torchvision.models.mobilenet_v3_small().features[0][0]
    assert first.weight.shape[1] == channels
    assert (first.stride, first.padding) == (usual.stride, usual.padding)
    assert first.weight.std().item() == pytest.approx(usual.weight.std().item(), rel=0.3)


def serve(monkeypatch, source):
    """Stands in for the network: torchvision's weights are those of `source`."""
    asked = []

    def weights(self, **kwargs):
        asked.append(kwargs)
        return copy.deepcopy(source.state_dict())

    monkeypatch.setattr(WeightsEnum, "get_state_dict", weights)
    return asked


@pytest.mark.slow
@pytest.mark.parametrize("network", ["squeezenet1_1", "mnasnet0_5"])
def test_torchvisions_pretrained_weights_are_copied_but_for_the_classifier(monkeypatch, network):
    source = settled(torchvision.models.get_model(network))
    asked = serve(monkeypatch, source)
    same = build_student(f"torchvision:{network}", num_classes=1000, image_shape=(3, 32, 32), pretrained=True)
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(same.eval()(images), source(images))
    other = build_student(f"torchvision:{network}", num_classes=5, image_shape=(3, 32, 32), pretrained=True)
    differing = [k for k, value in other.state_dict().items() if value.shape != source.state_dict()[k].shape]
    fresh = [k for k, value in other.state_dict().items() if not torch.equal(value, source.state_dict()[k])]
    assert len(differing) == 2 and fresh == differing
    assert asked[0]["weights_only"] is True


def test_pretrained_torchvision_filters_are_summed_for_one_channel(monkeypatch):
    source = torchvision.models.get_model("squeezenet1_1")
    serve(monkeypatch, source)
    net = build_student("torchvision:squeezenet1_1", num_classes=5, image_shape=(1, 32, 32), pretrained=True)
    assert torch.allclose(net.features[0].weight, source.features[0].weight.sum(dim=1, keepdim=True))


@pytest.mark.slow
def test_a_pretrained_network_needs_no_flag_to_normalise_its_input(monkeypatch):
    source = settled(torchvision.models.googlenet(transform_input=True, aux_logits=True, init_weights=True))
    serve(monkeypatch, source)
    net = build_student("torchvision:googlenet", num_classes=1000, image_shape=(3, 64, 64), pretrained=True)
    assert not net.transform_input
    inner = [module.conv1.register_forward_hook(lambda m, a, out: maps.append(out)) for module in (net, source)]
    maps, images = [], torch.randn(2, 3, 64, 64)
    net.eval()(images), source(images)
    assert len(inner) == len(maps) == 2
    ours, theirs = (each[:, :, 2:-2, 2:-2] for each in maps)  # the stem reaches three pixels over the border
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    assert isinstance(net.train()(images), torch.Tensor)


def test_a_torchvision_vit_wants_square_images():
    assert "takes square images only, not 32x64" in refuse("torchvision:vit_b_32", (3, 32, 64))


@pytest.mark.slow
def test_weights_that_do_not_fit_are_one_sentence(monkeypatch):
    serve(monkeypatch, torchvision.models.resnet18())
    sentence = refuse("torchvision:resnet18", pretrained=True, norm_layer=nn.Identity)
    assert sentence.endswith("do not fit the options given: bn1.weight differs")
