"""Networks that score pixels: smp's at any size, torchvision's without their dictionary, and the paper's own."""

import copy
import pickle
import re
from urllib.error import URLError

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
import torch.nn.functional as F
from torch import nn

from helpers.students import refused_student, segmenter, settled
from selfdistill.features.extractor import Taps
from selfdistill.models import build_student, list_students
from selfdistill.models.efficientdet import EfficientDet
from selfdistill.modules.pyramid import PyramidLayer, PyramidTeacher

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
def test_an_smp_student_is_smps_own_network_where_its_sizes_fit(name, twin):
    twin = twin()
    net = segmenter(name, **({"decoder_channels": 16} if "UPerNet" in name else {}))
    assert str(net) == str(twin)
    twin.load_state_dict(net.state_dict(), strict=True)
    net.load_state_dict(settled(twin).state_dict(), strict=True)
    images = torch.randn(2, 3, 64, 96)
    assert torch.equal(net.eval()(images), twin(images))


@pytest.mark.parametrize("size", [(93, 121), (32, 33), (1, 7)])
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


def test_the_authors_segmenter_and_self_teacher_have_the_published_parameter_count():
    net = EfficientDet("d0", in_channels=3, num_classes=21, authors=True)
    self_teacher = PyramidTeacher([64] * 6, 21)
    assert sum(p.numel() for part in (net, self_teacher) for p in part.parameters()) == 4_327_590


def test_the_authors_oversights_come_with_their_option_alone():
    ours, theirs = (segmenter("efficientdet:d0", authors=authors) for authors in (False, True))
    more = dict(theirs.named_parameters()).keys() - dict(ours.named_parameters()).keys()
    frozen = {name for name, p in theirs.named_parameters() if not p.requires_grad}
    assert frozen == more and all(name.startswith("unused.") for name in more)
    assert all(p.requires_grad for p in ours.parameters())
    below_zero = torch.full((1, 32, 2, 2), -1.0)
    assert isinstance(ours.backbone.bn1.act, nn.SiLU) and torch.equal(theirs.backbone.bn1.act(below_zero), below_zero)
    for net, settings in ((ours, (1e-5, 0.1)), (theirs, (1e-4, 0.997))):
        norms = [net.conv6[1], net.conv7[1], net.head[1], *(lateral[1] for lateral in net.lateral)]
        assert {(norm.eps, norm.momentum) for norm in norms} == {settings}
        assert all(norm[1].momentum == 0.1 for norm in net.pyramid[0].node_down)


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


ERRORS = [
    ("smp:Unett/resnet18", {}, "no network is called 'smp:Unett/resnet18'; did you mean 'smp:Unet'?"),
    ("smp:Unet", {}, "'smp:Unet' names no encoder; write 'smp:Unet/resnet18'"),
    ("smp:DPT", {}, "write 'smp:DPT/vit_tiny_patch16_224'"),
    ("smp:unet/resnet81", {}, "no encoder is called 'resnet81'; did you mean 'smp:Unet/resnet18'?"),
    ("smp:Linknet/mit_b0", {}, "smp builds no Linknet around mit_b0; it builds Unet, MAnet, FPN"),
    ("smp:DeepLabV3/vgg11", {}, "smp builds no DeepLabV3 around vgg11"),
    ("smp:Unet/test_vit", {}, "cannot be built (ValueError: Unsupported model downsampling pattern.)"),
    ("smp:PAN/resnet18", {}, "cannot take images of 3x64x96"),
    ("smp:Unet/resnet18", {"decoder_chanels": (8,)}, "did you mean 'decoder_channels'?"),
    ("smp:Unet/resnet18", {"drop_path_rate": 0.1}, "has no option 'drop_path_rate'"),
    ("smp:Unet/test_resnet", {"drop_path_rat": 0.1}, "has no option 'drop_path_rat'"),
    ("smp:FPN/test_resnet", {"decoder_merge_policy": "sum"}, "cannot be built with {'decoder_merge_policy': 'sum'}"),
    ("smp:Unet/resnet18", {"aux_params": {"classes": 2}}, "more than class scores"),
    ("smp:Unet/resnet18", {"activation": "sigmoid"}, "which the losses need as they are"),
    ("smp:Unet/resnet18", {"encoder_weights": "imagenet"}, "set pretrained=true"),
    ("smp:FPN/resnet18", {"upsampling": 2}, "the scores have the images' height and width"),
    ("smp:Unet/resnext101_32x16d", {"pretrained": True}, "there are no ImageNet weights for the encoder"),
    ("smp:Unet/vovnet39a", {"pretrained": True}, "there are no ImageNet weights for the encoder"),
    ("torchvision:fcn_resnet5", {}, "did you mean 'torchvision:fcn_resnet50'?"),
    ("torchvision:fcn_resnet50", {"aux_loss": True}, "more than class scores"),
    ("torchvision:fcn_resnet50", {"weights_backbone": None}, "set pretrained=true"),
    ("torchvision:lraspp_mobilenet_v3_large", {"width": 2}, "has no option 'width'; it has none"),
    ("torchvision:raft_small", {}, "does not score classes, neither of images nor of pixels"),
    ("efficientdet:d3", {}, "did you mean 'efficientdet:d"),
    ("efficientdet:d0", {"author": True}, "did you mean 'authors'?"),
    ("timm:resnet81", {}, "did you mean 'timm:resnet18'?"),
    (
        "timm:resnet18",
        {},
        "scores whole images, and the task needs scores of pixels; set another task, or take smp:Unet/resnet18",
    ),
    ("cifar:resnet20", {}, "the task needs scores of pixels; set another task, or take smp:Unet/resnet18"),
    ("torchvision:resnet18", {}, "scores whole images, and the task needs scores of pixels"),
]


def refusal(name, output="pixel", image_shape=(3, 64, 96), **options):
    return refused_student(name, num_classes=CLASSES, image_shape=image_shape, output=output, **options)


@pytest.mark.parametrize(("name", "options", "said"), ERRORS)
def test_what_cannot_be_built_is_said_in_one_sentence(name, options, said):
    assert said in refusal(name, **options)


def test_an_output_that_does_not_exist_is_refused():
    assert refusal("smp:Unet/resnet18", "pixels").endswith("did you mean 'pixel'?")


@pytest.mark.parametrize("name", ["smp:Unet/resnet18", "torchvision:fcn_resnet50", "efficientdet:d0"])
def test_a_segmenter_does_not_score_whole_images(name):
    assert f"{name} scores pixels, and the task needs scores of whole images; set another" in refusal(name, "image")


def pixels(num_classes):
    return nn.Conv2d(3, num_classes, 1)


def halved(num_classes):
    return nn.Conv2d(3, num_classes, 2, stride=2)


def test_ones_own_network_must_score_every_pixel():
    here = f"{__name__}:"
    net = build_student(f"{here}pixels", num_classes=4, image_shape=(3, 8, 6), output="pixel")
    assert net(torch.randn(2, 3, 8, 6)).shape == (2, 4, 8, 6)
    said = refusal(f"{here}halved", image_shape=(3, 8, 6))
    assert said.endswith("must return scores of shape (1, 5, 8, 6) for one image, not (1, 5, 4, 3)")
    said = refusal(f"{here}pixels", "image", image_shape=(3, 8, 6))
    assert said.endswith("of shape (1, 5) for one image, not (1, 5, 8, 6); is it for a task that scores every pixel?")


@pytest.mark.parametrize("name", ["smp:Unet/resnet18", "smp:Unet/resnet10t", "smp:DPT/vit_tiny_patch16_224"])
def test_weights_that_cannot_be_fetched_are_one_sentence(monkeypatch, name):
    def unreachable(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(smp.encoders, "hf_hub_download", unreachable)
    monkeypatch.setattr("timm.models._builder.load_pretrained", unreachable)
    assert f"weights of {name} could not be fetched" in refusal(name, pretrained=True)


def test_the_papers_segmenter_starts_from_timms_weights(monkeypatch):
    source = timm.create_model("efficientnet_b0")
    create = timm.create_model
    asked = []

    def served(network, *, pretrained, **options):
        asked.append((network, pretrained))
        net = create(network, **options)
        net.load_state_dict(source.state_dict(), strict=False)
        return net

    monkeypatch.setattr(timm, "create_model", served)
    net = segmenter("efficientdet:d0", pretrained=True)
    assert asked == [("efficientnet_b0", True)]
    assert torch.equal(net.backbone.blocks[2][0].conv_pw.weight, source.blocks[2][0].conv_pw.weight)


def test_segmenters_are_listed():
    assert list_students("Unet/resnet1*") == ["smp:Unet/resnet18", "smp:Unet/resnet101", "smp:Unet/resnet152"]
    assert list_students("efficientdet:*") == ["efficientdet:d0", "efficientdet:d1", "efficientdet:d2"]
    assert "torchvision:lraspp_mobilenet_v3_large" in list_students("lraspp*")
    listed = list_students("smp:*")
    assert "smp:DeepLabV3/resnet18" in listed and not {"smp:Linknet/mit_b0", "smp:PAN/vgg11"} & set(listed)
