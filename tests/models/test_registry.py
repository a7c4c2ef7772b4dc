"""Names of networks: which exist, and the sentences for what cannot be built."""

from urllib.error import URLError

import pytest
import timm
import torch
from torch import nn
from torchvision.models._api import WeightsEnum

from helpers.students import refused_student
from selfdistill.models import build_student, list_students

CLASSES = 5

ERRORS = [
    ("resnet20", {}, "write 'cifar:resnet20'"),
    ("resnet18", {}, "'cifar:resnet18' or 'torchvision:resnet18' or 'timm:resnet18'"),
    ("wrn-34-10", {}, "write 'cifar:wrn-34-10'"),
    ("resnet81", {}, "did you mean"),
    ("", {}, "a name begins with"),
    (":resnet18", {}, "a name begins with"),
    ("cifar:resnet21", {}, "did you mean 'cifar:resnet20'?"),
    ("cifar:WRN-16-2", {}, "did you mean 'cifar:wrn-16-2'?"),
    ("cifar:wrn-17-2", {}, "the nearest is 'cifar:wrn-16-2'"),
    ("cifar:wrn-4-2", {}, "the nearest is 'cifar:wrn-10-2'"),
    ("cifar:frskd-wrn-39-0", {}, "the nearest is 'cifar:frskd-wrn-40-1'"),
    ("cifar:resnet20", {"drop_rate": 0.1}, "has no option 'drop_rate'; the choice is: zero_init_last, init"),
    ("cifar:wrn-16-2", {"norm": "group"}, "has no option 'norm'"),
    ("cifar:wrn-16-2", {"drop_rate": 2.0}, "dropout probability"),
    ("cifar:resnet20", {"pretrained": True}, "no pretrained weights"),
    ("cifar:vgg12", {}, "did you mean 'cifar:vgg1"),
    ("cifar:vgg13", {"drop_rate": 0.1}, "has no option 'drop_rate'; it has none"),
    ("cifar:mobilenetv2", {"width": 0.01}, "width=0.01"),
    ("cifar:shufflenet", {}, "did you mean 'cifar:shufflenetv"),
    ("timm:resnet81", {}, "did you mean 'timm:resnet18'?"),
    ("timm:resnet18.a9_in1k", {}, "no weights tagged 'a9_in1k'; did you mean 'timm:resnet18.a"),
    ("timm:vit_base_patch16_224_in21k", {}, "timm now calls it 'timm:vit_base_patch16_224.augreg_in21k'"),
    ("timm:resnet10t", {"drop_rat": 0.1}, "has no option 'drop_rat'; did you mean 'drop_rate'?"),
    ("timm:resnet10t", {"in_chans": 1}, "follows from the data"),
    ("timm:resnet10t", {"features_only": True}, "without class scores"),
    ("timm:resnet10t", {"global_pool": "nonsense"}, "cannot be built with {'global_pool': 'nonsense'}"),
    ("timm:vovnet39a", {"pretrained": True}, "so pretrained must be false"),
    ("timm:halonet_h1", {}, "cannot take images of 3x16x16"),
    ("torchvision:resnet81", {}, "did you mean 'torchvision:resnet18'?"),
    ("torchvision:resnet10t", {}, "no network is called 'torchvision:resnet10t'"),
    ("torchvision:raft_small", {}, "does not score classes, neither of images nor of pixels"),
    ("torchvision:resnet18", {"zero_init": True}, "did you mean 'zero_init_residual'?"),
    ("torchvision:resnet18", {"layers": [1]}, "has no option 'layers'"),
    ("torchvision:googlenet", {"aux_logits": True}, "more than class scores"),
    ("torchvision:resnet18", {"weights": "DEFAULT"}, "set pretrained=true"),
    ("torchvision:alexnet", {}, "cannot take images of 3x16x16"),
]
PIXEL_ERRORS = [
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


def refuse(name, image_shape=(3, 16, 16), **options):
    return refused_student(name, num_classes=10, image_shape=image_shape, **options)


def refuse_segmenter(name, output="pixel", image_shape=(3, 64, 96), **options):
    return refused_student(name, num_classes=CLASSES, image_shape=image_shape, output=output, **options)


@pytest.mark.parametrize(("name", "options", "said"), ERRORS)
def test_what_cannot_be_built_is_said_in_one_sentence(name, options, said):
    assert said in refuse(name, **options)


@pytest.mark.parametrize(("name", "options", "said"), PIXEL_ERRORS)
def test_what_cannot_score_pixels_is_said_in_one_sentence(name, options, said):
    assert said in refuse_segmenter(name, **options)


def test_an_output_that_does_not_exist_is_refused():
    assert refuse_segmenter("smp:Unet/resnet18", "pixels").endswith("did you mean 'pixel'?")


@pytest.mark.parametrize("name", ["smp:Unet/resnet18", "torchvision:fcn_resnet50", "efficientdet:d0"])
def test_a_segmenter_does_not_score_whole_images(name):
    sentence = refuse_segmenter(name, "image")
    assert f"{name} scores pixels, and the task needs scores of whole images; set another" in sentence


def pixels(num_classes):
    return nn.Conv2d(3, num_classes, 1)


def halved(num_classes):
    return nn.Conv2d(3, num_classes, 2, stride=2)


def test_ones_own_network_must_score_every_pixel():
    here = f"{__name__}:"
    net = build_student(f"{here}pixels", num_classes=4, image_shape=(3, 8, 6), output="pixel")
    assert net(torch.randn(2, 3, 8, 6)).shape == (2, 4, 8, 6)
    said = refuse_segmenter(f"{here}halved", image_shape=(3, 8, 6))
    assert said.endswith("must return scores of shape (1, 5, 8, 6) for one image, not (1, 5, 4, 3)")
    said = refuse_segmenter(f"{here}pixels", "image", image_shape=(3, 8, 6))
    assert said.endswith("of shape (1, 5) for one image, not (1, 5, 8, 6); is it for a task that scores every pixel?")


@pytest.mark.parametrize("source", ["timm", "torchvision"])
def test_weights_that_cannot_be_fetched_are_one_sentence(monkeypatch, source):
    def unreachable(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(timm, "create_model", unreachable)
    monkeypatch.setattr(WeightsEnum, "get_state_dict", unreachable)
    sentence = refuse(f"{source}:resnet18", pretrained=True)
    assert f"weights of {source}:resnet18 could not be fetched" in sentence and "no route to host" in sentence


def test_students_are_listed_with_their_prefix_and_found_without():
    assert list_students("resnet18") == ["cifar:resnet18", "torchvision:resnet18", "timm:resnet18"]
    assert "cifar:frskd-wrn-16-2" in list_students("cifar:*")
    assert all(name.startswith("timm:convnext_a") for name in list_students("timm:convnext_a*"))
    assert len(list_students()) > 1000 and list_students("no such network") == []


def test_segmenters_are_listed():
    assert list_students("Unet/resnet1*") == ["smp:Unet/resnet18", "smp:Unet/resnet101", "smp:Unet/resnet152"]
    assert list_students("efficientdet:*") == ["efficientdet:d0", "efficientdet:d1", "efficientdet:d2"]
    assert "torchvision:lraspp_mobilenet_v3_large" in list_students("lraspp*")
    listed = list_students("smp:*")
    assert "smp:DeepLabV3/resnet18" in listed and not {"smp:Linknet/mit_b0", "smp:PAN/vgg11"} & set(listed)
