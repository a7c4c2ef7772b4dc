"""Every architecture of smp around encoders of every make, torchvision's segmenters and the paper's, at odd sizes."""

import pytest
import torch

from helpers.networks import CLASSES
from helpers.programs import call
from helpers.students import segmenter
from helpers.traced_segmenters import TRACED, trace_all
from selfdistill import Batch, Task, create_method
from selfdistill.models.efficientdet import NETWORKS, EfficientDet
from selfdistill.modules.pyramid import PyramidTeacher

pytestmark = pytest.mark.slow
PARAMETERS = {"d0": 4_327_590, "d1": 7_127_946, "d2": 8_592_940}  # with self-teacher, at 21 classes, as published
ENCODERS = ("resnet18", "mobilenetv3_large_100", "efficientnet-b0", "convnext_atto", "mit_b0", "regnety_002")
ARCHITECTURES = ("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "PAN")
ARCHITECTURES += ("UPerNet", "Segformer")
EVERYWHERE = ("resnet18", "mobilenetv3_large_100")  # the other encoders stand in two architectures
PAIRS = [(a, e) for a in ARCHITECTURES for e in ENCODERS if e in EVERYWHERE or a in ("Unet", "FPN")]
SMP = [f"smp:{a}/{e}" for a, e in PAIRS]
SMP += [
    *("smp:DPT/vit_tiny_patch16_224", "smp:Unet/swin_tiny_patch4_window7_224"),
    *("smp:Unet/hrnet_w18_small", "smp:Unet/dla46x_c", "smp:FPN/maxvit_pico_rw_256"),
    *("smp:Unet/densenet121", "smp:FPN/pvt_v2_b0"),
]
TORCHVISION = {
    "fcn_resnet50": ["backbone.relu", "backbone.layer1", "backbone.layer4"],
    "deeplabv3_resnet50": ["backbone.relu", "backbone.layer1", "backbone.layer4"],
    "deeplabv3_mobilenet_v3_large": [f"backbone.{i}" for i in (1, 3, 6, 16)],
    "lraspp_mobilenet_v3_large": [f"backbone.{i}" for i in (1, 3, 6, 16)],
}


def step(student, image_shape, **settings):
    """One step of FRSKD: what is logged is finite, and every tapped map and its maker learn."""
    method = create_method("frskd", student, Task("segmentation", CLASSES, image_shape), **settings)
    target = torch.randint(CLASSES, (2, *image_shape[1:]))
    target[:, :5] = -100
    losses, logits, *_ = method(Batch(torch.randn(2, *image_shape), target))
    assert logits.shape == (2, CLASSES, *image_shape[1:])
    assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())
    sum(losses.values()).backward()
    gradients = [p.grad for p in student.parameters() if p.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)
    for tap in method.taps:
        maker = student.get_submodule(tap.name)
        assert all(p.grad is not None for p in maker.parameters()), tap.name
    return method.taps


@pytest.mark.parametrize("name", SMP)
def test_frskd_trains_every_architecture_of_smp_on_its_encoders_maps(name):
    image_shape = (3, 131, 150) if "PAN" in name else (3, 61, 93)  # PAN halves its deepest map three times more
    student = segmenter(name, image_shape)
    handed = []
    taps = step(student, image_shape)
    assert taps.source == "encoder" and all(tap.name.startswith("encoder.") for tap in taps)
    student.eval().encoder.register_forward_hook(lambda module, args, output: handed.extend(output))
    with torch.no_grad():
        _, features = taps(torch.randn(2, *image_shape))
    handed = [f for each in handed for f in (each if isinstance(each, list) else [each])]
    for feature in features:
        assert any(f.shape == feature.shape and torch.equal(f, feature) for f in handed)


@pytest.mark.parametrize("name", sorted(TORCHVISION))
def test_frskd_trains_torchvisions_segmenters_on_their_backbones_maps(name):
    image_shape = (3, 93, 121)
    taps = step(segmenter(f"torchvision:{name}", image_shape), image_shape)
    assert [tap.name for tap in taps] == TORCHVISION[name]


@pytest.mark.parametrize("authors", [False, True])
@pytest.mark.parametrize("network", ["d0", "d1", "d2"])
def test_frskd_trains_the_papers_segmenter_on_its_pyramid(network, authors):
    student = EfficientDet(network, in_channels=3, num_classes=CLASSES, authors=authors)
    taps = step(student, (3, 93, 121), self_teacher_net="pyramid")
    assert [tap.size for tap in taps] == [(24, 31), (12, 16), (6, 8), (3, 4), (2, 2), (1, 1)]
    assert all((p.grad is not None) == p.requires_grad for p in student.parameters())


@pytest.mark.parametrize(("network", "count"), PARAMETERS.items())
def test_the_authors_segmenters_and_self_teachers_have_the_published_parameter_counts(network, count):
    net = EfficientDet(network, in_channels=3, num_classes=21, authors=True)
    self_teacher = PyramidTeacher([NETWORKS[network][1]] * 6, 21)
    assert sum(p.numel() for part in (net, self_teacher) for p in part.parameters()) == count


@pytest.fixture(scope="module")
def traced(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traced")
    call(trace_all, str(folder))
    return torch.load(folder / "traced.pt", weights_only=True)


@pytest.mark.parametrize("name", TRACED)
def test_a_segmenter_and_its_taps_are_one_graph_and_export_with_free_height_and_width(traced, name):
    assert isinstance(traced[name], list), traced[name]
    assert len(traced[name]) > 4 and max(traced[name]) < 1e-4
