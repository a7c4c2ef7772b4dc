"""One small network of every timm family, and of torchvision's, is tapped without a change to it."""

import pytest
import timm
import torch
import torchvision
from torch import nn

from selfdistill.features.extractor import Taps

pytestmark = pytest.mark.slow

SMALL = {"img_size": 64, "depth": 4, "embed_dim": 64, "num_heads": 4}  # for families that have no small network
LISTED = "1.0.31"  # timm's release that the families were listed from
FAMILIES = {  # family: (network, image size, options)
    "beit": ("beit_base_patch16_224", 64, SMALL),
    "byoanet": ("botnet26t_256", 64, {"img_size": 64}),  # those with halo attention take no images below 256
    "byobnet": ("test_byobnet", 64, {}),
    "cait": ("cait_xxs24_224", 64, {"img_size": 64}),
    "coat": ("coat_tiny", 64, {"img_size": 64, "serial_depths": (1, 1, 1, 1), "parallel_depth": 2}),
    "convit": ("convit_tiny", 64, {"img_size": 64}),
    "convmixer": ("convmixer_768_32", 64, {}),
    "convnext": ("test_convnext", 64, {}),
    "cpubone": ("cpubone_nano", 64, {}),
    "crossvit": ("crossvit_tiny_240", 64, {"img_size": 64, "img_scale": (1.0, 1.0), "patch_size": (8, 16)}),
    "csatv2": ("csatv2", 64, {}),
    "cspnet": ("cs3darknet_focus_s", 64, {}),
    "cspnext": ("cspnext_tiny", 64, {}),
    "davit": ("davit_tiny", 64, {"depths": (1, 1, 1, 1)}),
    "deepseek_vit": ("deepseek_vit_412m", 56, SMALL | {"img_size": 56}),
    "deit": ("deit_tiny_distilled_patch16_224", 64, {"img_size": 64}),
    "densenet": ("densenet121", 64, {}),
    "dla": ("dla46x_c", 64, {}),
    "dpn": ("dpn48b", 64, {}),
    "edgenext": ("edgenext_xx_small", 64, {}),
    "efficientformer": ("efficientformer_l1", 224, {"depths": (1, 1, 1, 1), "num_vit": 1}),  # takes no other size
    "efficientformer_v2": ("efficientformerv2_s0", 64, {"img_size": 64}),
    "efficientnet": ("test_efficientnet", 64, {}),
    "efficientvim": ("efficientvim_m1", 64, {}),
    "efficientvit_mit": ("efficientvit_b0", 64, {}),
    "efficientvit_msra": ("efficientvit_m0", 64, {"img_size": 64}),
    "eva": ("eva02_tiny_patch14_224", 56, {"img_size": 56}),
    "fasternet": ("fasternet_t0", 64, {}),
    "fastvit": ("fastvit_t8", 64, {}),
    "focalnet": ("focalnet_tiny_srf", 64, {}),
    "gcvit": ("gcvit_xxtiny", 64, {"img_size": 64}),
    "gemma4_vit": ("gemma4_vit_167m", 64, SMALL),
    "ghostnet": ("ghostnet_050", 64, {}),
    "hardcorenas": ("hardcorenas_b", 64, {}),
    "hgnet": ("hgnetv2_b0", 64, {}),
    "hiera": ("hiera_tiny_224", 64, {"img_size": 64}),
    "hieradet_sam2": ("sam2_hiera_tiny", 64, {}),
    "hrnet": ("hrnet_w18_small", 64, {}),
    "iformer": ("iformer_t", 64, {}),
    "inception_next": ("inception_next_atto", 64, {}),
    "inception_resnet_v2": ("inception_resnet_v2", 96, {}),
    "inception_v3": ("inception_v3", 96, {}),
    "inception_v4": ("inception_v4", 96, {}),
    "lcnetv2": ("lcnetv2_small", 64, {}),
    "levit": ("levit_128s", 64, {"img_size": 64}),
    "lowformer": ("lowformer_b0", 64, {}),
    "mambaout": ("test_mambaout", 64, {}),
    "maxxvit": ("test_maxvit", 64, {"img_size": 64}),
    "metaformer": ("poolformerv2_s12", 64, {}),
    "mlp_mixer": ("gmlp_ti16_224", 64, {"img_size": 64}),
    "mobilenetv3": ("mobilenetv3_small_050", 64, {}),
    "mobilenetv5": ("mobilenetv5_300m", 64, {"channel_multiplier": 0.25}),
    "mobilevit": ("mobilevit_xxs", 64, {}),
    "mvitv2": ("mvitv2_tiny", 64, {"img_size": 64}),
    "naflexvit": ("naflexvit_base_patch16_gap", 64, SMALL),
    "nasnet": ("nasnetalarge", 64, {"stem_size": 24, "num_features": 1056}),
    "nest": ("nest_tiny", 64, {"img_size": 64}),
    "nextvit": ("nextvit_small", 64, {}),
    "nfnet": ("test_nfnet", 64, {}),
    "pit": ("pit_ti_distilled_224", 64, {"img_size": 64}),
    "pnasnet": ("pnasnet5large", 64, {}),
    "pvt_v2": ("pvt_v2_b0", 64, {}),
    "qwen3_vit": ("qwen3_vit_88m", 64, SMALL),
    "rdnet": ("rdnet_tiny", 64, {}),
    "regnet": ("regnety_002", 64, {}),
    "repghost": ("repghostnet_050", 64, {}),
    "repvit": ("repvit_m1", 64, {}),
    "res2net": ("res2next50", 64, {"layers": [1, 1, 1, 1]}),
    "resnest": ("resnest14d", 64, {}),
    "resnet": ("test_resnet", 64, {}),
    "resnetv2": ("resnetv2_18", 64, {}),
    "rexnet": ("rexnet_100", 64, {}),
    "selecsls": ("selecsls42", 64, {}),
    "senet": ("legacy_seresnet18", 64, {}),
    "sequencer": ("sequencer2d_s", 64, {"img_size": 64, "layers": [1, 1, 1, 1]}),
    "shvit": ("shvit_s1", 64, {}),
    "sknet": ("skresnet18", 64, {}),
    "starnet": ("starnet_s050", 64, {}),
    "swiftformer": ("swiftformer_xs", 64, {}),
    "swin_transformer": ("swin_tiny_patch4_window7_224", 64, {"img_size": 64, "depths": (1, 1, 1, 1)}),
    "swin_transformer_v2": ("swinv2_tiny_window8_256", 64, {"img_size": 64, "depths": (1, 1, 1, 1)}),
    "swin_transformer_v2_cr": ("swinv2_cr_tiny_224", 64, {"img_size": 64, "depths": (1, 1, 1, 1)}),
    "tiny_vit": ("tiny_vit_5m_224", 64, {}),
    "tnt": ("tnt_s_patch16_224", 64, {"img_size": 64, "depth": 4}),
    "tresnet": ("tresnet_m", 64, {"layers": [1, 1, 1, 1]}),
    "twins": ("twins_svt_small", 64, {"img_size": 64, "depths": [1, 1, 1, 1]}),
    "vgg": ("vgg11_bn", 64, {"mlp_ratio": 0.05}),
    "visformer": ("visformer_tiny", 64, {"img_size": 64}),
    "vision_transformer": ("test_vit", 64, {"img_size": 64}),
    "vision_transformer_hybrid": ("vit_tiny_r_s16_p8_224", 64, {"img_size": 64}),
    "vision_transformer_relpos": ("test_vit_relpos", 64, {"img_size": 64}),
    "vision_transformer_sam": ("samvit_base_patch16_224", 64, SMALL),
    "vitamin": ("vitamin_small_224", 64, {"img_size": 64}),
    "volo": ("volo_d1_224", 64, {"img_size": 64}),
    "vovnet": ("ese_vovnet19b_slim_dw", 64, {}),
    "xception": ("legacy_xception", 64, {}),
    "xception_aligned": ("xception41p", 64, {}),
    "xcit": ("xcit_nano_12_p8_224", 64, {"img_size": 64}),
}
TORCHVISION = {  # network: (image size, options, the stages)
    "resnet18": (32, {}, ["layer1", "layer2", "layer3", "layer4"]),
    "densenet121": (64, {}, [*(f"features.denseblock{i}" for i in (1, 2, 3, 4))]),
    "mobilenet_v3_small": (64, {}, ["features.1", "features.3", "features.8", "features"]),
    "efficientnet_b0": (64, {}, ["features.2", "features.3", "features.5", "features"]),
    "regnet_y_400mf": (64, {}, [*(f"trunk_output.block{i}" for i in (1, 2, 3)), "trunk_output"]),
    "convnext_tiny": (64, {}, ["features.1", "features.3", "features.5", "features"]),
    "swin_t": (64, {}, ["features.1", "features.3", "features.5", "norm"]),
    "vit_b_16": (64, {"image_size": 64}, [f"encoder.layers.encoder_layer_{i}" for i in (2, 5, 8, 11)]),
    "vgg11_bn": (64, {}, ["features.13", "features.20", "features.27", "features"]),
    "squeezenet1_1": (64, {}, ["features.1", "features.4", "features.7", "features"]),
    "shufflenet_v2_x0_5": (64, {}, ["maxpool", "stage2", "stage3", "conv5"]),
    "googlenet": (
        64,
        {"aux_logits": False, "init_weights": False},
        ["conv3", "inception3b", "inception4e", "inception5b"],
    ),
    "mnasnet0_5": (64, {}, ["layers.8", "layers.9", "layers.11", "layers"]),
    "maxvit_t": (224, {}, ["blocks.0", "blocks.1", "blocks.2", "blocks.3"]),
}


@pytest.fixture(autouse=True)
def own_seed():
    torch.manual_seed(0)


def compare_with_student(taps: Taps, images: torch.Tensor) -> None:
    """In eval mode the scores are the student's own, and the maps are as announced."""
    student = taps.student.eval()
    with torch.no_grad():
        logits, features = taps(images)
        torch.testing.assert_close(logits, student(images))
    assert [f.shape[1:] for f in features] == [(tap.channels, *tap.size) for tap in taps]
    sizes = [tap.size for tap in taps]
    assert 1 <= len(taps) <= 4 and (len(set(sizes)) in (1, len(sizes))) and sizes == sorted(sizes, reverse=True)


def check(taps: Taps, size: int) -> None:
    """The scores are the student's own, and the maps are as announced and carry gradients to it."""
    images = torch.rand(2, 3, size, size)
    compare_with_student(taps, images)
    student = taps.student.train()
    logits, features = taps(images)
    (logits.sum() + sum(f.sum() for f in features)).backward()
    gradients = [p.grad for p in student.parameters() if p.grad is not None]
    assert gradients and all(t.isfinite().all() for t in (logits, *features, *gradients))


def test_every_family_of_timm_is_listed():
    missing = set(timm.list_modules()) - set(FAMILIES)
    if missing and timm.__version__ != LISTED:
        pytest.skip(f"timm {timm.__version__} has families that {LISTED} had not: {', '.join(sorted(missing))}")
    assert not missing, f"add a small network of {', '.join(sorted(missing))} to FAMILIES"


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() & set(timm.list_modules())))
def test_a_network_of_every_timm_family_is_tapped(family):
    name, size, options = FAMILIES[family]
    if name not in timm.list_models():
        pytest.skip(f"timm {timm.__version__} has no {name}")
    net = timm.create_model(name, num_classes=5, **options)
    check(Taps(net, (3, size, size)), size)
    wrapped = Taps(nn.Sequential(net), (3, size, size))  # which shows neither protocol nor feature_info
    compare_with_student(wrapped, torch.rand(2, 3, size, size))


@pytest.mark.parametrize("name", sorted(TORCHVISION))
def test_the_stages_of_torchvisions_networks_are_found(name):
    size, options, stages = TORCHVISION[name]
    net = torchvision.models.get_model(name, weights=None, num_classes=5, **options)
    taps = Taps(net, (3, size, size))
    assert [tap.name for tap in taps] == stages
    check(taps, size)
