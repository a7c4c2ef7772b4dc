"""Networks of segmentation-models-pytorch at any image size."""

import copy
import pickle
from urllib.error import URLError

import pytest
import segmentation_models_pytorch as smp
import torch

from helpers.students import refused_student, segmenter, settled
from selfdistill.features.extractor import Taps

CLASSES = 5
SMALL = {"decoder_channels": (16, 16, 8, 8, 8)}


def plain(architecture, encoder, **options):
    torch.manual_seed(0)
    return getattr(smp, architecture)(encoder, encoder_weights=None, classes=CLASSES, **options)


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("smp:PSPNet/resnet18", lambda: plain("PSPNet", "resnet18")),
        ("smp:fpn/test_efficientnet", lambda: plain("FPN", "tu-test_efficientnet")),
        ("smp:UPerNet/tu-test_convnext", lambda: plain("UPerNet", "tu-test_convnext", decoder_channels=16)),
    ],
)
@pytest.mark.slow
def test_an_smp_student_is_smps_own_network_where_its_sizes_fit(name, twin):
    twin = twin()
    net = segmenter(name, **({"decoder_channels": 16} if "UPerNet" in name else {}))
    assert str(net) == str(twin)
    twin.load_state_dict(net.state_dict(), strict=True)
    net.load_state_dict(settled(twin).state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 96)
    assert torch.equal(net.eval()(images), twin(images))


@pytest.mark.parametrize("size", [(93, 121), (32, 33), (1, 7)])
@pytest.mark.slow
def test_images_of_other_sizes_are_filled_up_at_the_right_and_bottom_and_the_scores_cut_back(size):
    net, twin = settled(segmenter("smp:FPN/test_resnet")), plain("FPN", "tu-test_resnet")
    twin.load_state_dict(net.state_dict())
    images = torch.randn(2, 3, *size)
    filled = torch.zeros(2, 3, 96, 128)[:, :, : 32 * ((size[0] + 31) // 32), : 32 * ((size[1] + 31) // 32)]
    filled[:, :, : size[0], : size[1]] = images
    with pytest.raises(RuntimeError, match="Wrong input shape"):
        twin.eval()(images)
    assert torch.equal(net(images), twin(filled)[:, :, : size[0], : size[1]])


@pytest.mark.parametrize("network", ["smp:Unet/test_resnet", "torchvision:lraspp_mobilenet_v3_large"])
@pytest.mark.slow
def test_a_segmenter_can_be_copied_and_pickled(network):
    net, images = settled(segmenter(network)), torch.randn(2, 3, 61, 45)
    scores = net(images)
    assert torch.equal(copy.deepcopy(net)(images), scores)
    assert torch.equal(pickle.loads(pickle.dumps(net))(images), scores)


def test_an_encoder_is_smps_own_where_it_has_one_and_else_timms():
    assert type(segmenter("smp:PSPNet/resnet18").encoder).__name__ == "ResNetEncoder"
    for encoder in ("tu-resnet18", "test_resnet"):
        assert type(segmenter(f"smp:PSPNet/{encoder}").encoder).__name__ == "TimmUniversalEncoder"


@pytest.mark.parametrize(("architecture", "depth"), [("FPN", 3), ("FPN", 4), ("PSPNet", 4)])
def test_the_scores_fit_the_image_at_every_depth_of_the_encoder(architecture, depth):
    net = segmenter(f"smp:{architecture}/test_resnet", encoder_depth=depth).eval()
    twin = plain(architecture, "tu-test_resnet", encoder_depth=depth)
    twin.segmentation_head = net.segmentation_head
    assert twin.eval()(torch.randn(1, 3, 64, 96)).shape == (1, CLASSES, 64, 96)


def test_options_reach_decoder_and_timms_encoder():
    net = segmenter("smp:Unet/test_resnet", **SMALL, drop_path_rate=0.5)
    assert net.decoder.blocks[0].conv1[0].out_channels == 16
    assert segmenter("smp:Unet/test_resnet", image_shape=(4, 64, 64), **SMALL).encoder.model.conv1[0].in_channels == 4
    assert any(type(module).__name__ == "DropPath" for module in net.modules())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smp:Unet/test_resnet", "smp:DPT/test_vit"])
def test_the_taps_of_an_smp_network_are_what_its_encoder_hands_on(name):
    net = segmenter(name, image_shape=(3, 93, 121)).eval()
    taps = Taps(net, (3, 93, 121))
    handed = []
    net.encoder.register_forward_hook(lambda module, args, output: handed.extend(output))
    _, features = taps(torch.randn(2, 3, 93, 121))
    handed = [f for each in handed for f in (each if isinstance(each, list) else [each])]
    assert taps.source == "encoder" and len(taps) == 4
    for feature in features:
        assert any(f.shape == feature.shape and torch.equal(f, feature) for f in handed)
    assert features[-1].shape == handed[-1].shape or name == "smp:DPT/test_vit"


def refuse_segmenter(name, output="pixel", image_shape=(3, 64, 96), **options):
    return refused_student(name, num_classes=CLASSES, image_shape=image_shape, output=output, **options)


@pytest.mark.parametrize("name", ["smp:Unet/resnet18", "smp:Unet/resnet10t", "smp:DPT/vit_tiny_patch16_224"])
def test_weights_that_cannot_be_fetched_are_one_sentence(monkeypatch, name):
    def unreachable(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(smp.encoders, "hf_hub_download", unreachable)
    monkeypatch.setattr("timm.models._builder.load_pretrained", unreachable)
    assert f"weights of {name} could not be fetched" in refuse_segmenter(name, pretrained=True)
