"""Networks for small images: parameter counts, maps and equations of their papers."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from helpers.students import settled
from selfdistill.features.extractor import Taps
from selfdistill.models import build_student, list_students

PARAMETERS = {  # at 100 classes; frskd-wrn-16-2 as its authors count it, an unused batch norm included
    "resnet18": 11_220_132,
    "resnet20": 278_324,
    "resnet50": 23_705_252,
    "resnet56": 861_620,
    "resnet8x4": 1_233_540,
    "resnet32x4": 7_433_860,
    "wrn-16-2": 703_284,
    "wrn-40-1": 569_780,
    "wrn-40-2": 2_255_156,
    "frskd-wrn-16-2": 703_060,
    "vgg13": 9_462_180,
    "mobilenetv2": 812_836,
    "shufflenetv1": 949_258,
    "shufflenetv2": 1_355_528,
}
MAPS = {  # channels and side of each map of a 32 x 32 image
    "wrn-16-2": [(32, 32), (64, 16), (128, 8)],
    "wrn-40-1": [(16, 32), (32, 16), (64, 8)],
    "resnet8x4": [(64, 32), (128, 16), (256, 8)],
    "resnet50": [(256, 32), (512, 16), (1024, 8), (2048, 4)],
    "vgg8": [(64, 32), (128, 16), (256, 8), (512, 4)],
    "vgg13": [(64, 32), (128, 16), (256, 8), (512, 4)],
    "mobilenetv2": [(12, 32), (16, 16), (48, 8), (160, 4)],
    "shufflenetv1": [(240, 16), (480, 8), (960, 4)],
    "shufflenetv2": [(116, 16), (232, 8), (464, 4)],
}
RECTIFIED = ["resnet8", "resnet8x4", "resnet18", "wrn-10-2", "wrn-16-1", "frskd-wrn-16-1"]
RECTIFIED += ["vgg8", "shufflenetv1", "shufflenetv2"]
KINDS = [*RECTIFIED, "mobilenetv2"]


def cifar(network, num_classes=10, image_shape=(3, 8, 8), **options):
    torch.manual_seed(0)
    return build_student(f"cifar:{network}", num_classes=num_classes, image_shape=image_shape, **options)


@pytest.mark.slow
@pytest.mark.parametrize(("network", "count"), PARAMETERS.items())
def test_parameter_counts_are_the_published_ones(network, count):
    with torch.device("meta"):
        net = cifar(network, num_classes=100)
    assert sum(p.numel() for p in net.parameters()) == count


@pytest.mark.slow
@pytest.mark.parametrize(("network", "maps"), MAPS.items())
def test_stage_maps_have_the_published_shapes(network, maps):
    with torch.device("meta"):
        net, outputs = cifar(network), {}
    for stage in net.feature_info:
        keep = lambda module, args, output, name=stage["module"]: outputs.update({name: tuple(output.shape)})  # noqa: E731
        net.get_submodule(stage["module"]).register_forward_hook(keep)
    net(torch.empty(2, 3, 32, 32, device="meta"))
    assert [outputs[stage["module"]] for stage in net.feature_info] == [(2, c, side, side) for c, side in maps]


@pytest.mark.parametrize("network", ["vgg13", "mobilenetv2", "shufflenetv1", "shufflenetv2"])
def test_tapped_modules_are_children_of_the_network(network):
    net = cifar(network)
    assert {stage["module"] for stage in net.feature_info} < {name for name, _ in net.named_children()}


@pytest.mark.parametrize(("channels", "size"), [(3, (32, 32)), (1, (28, 28)), (4, (9, 13))])
@pytest.mark.parametrize("network", ["resnet8", "wrn-10-1", "frskd-wrn-10-1", "resnet8x4", *KINDS[-4:]])
def test_a_cifar_network_takes_any_size_and_channels(network, size, channels):
    net = cifar(network, num_classes=7, image_shape=(channels, *size))
    assert net(torch.randn(2, channels, *size)).shape == (2, 7)


@pytest.mark.parametrize("network", KINDS)
def test_feature_info_names_the_stage_maps(network):
    net, outputs = settled(cifar(network, image_shape=(3, 19, 16))), {}
    for stage in net.feature_info:
        keep = lambda module, args, output, name=stage["module"]: outputs.update({name: (output, output.clone())})  # noqa: E731
        net.get_submodule(stage["module"]).register_forward_hook(keep)
    net(torch.randn(2, 3, 19, 16))
    assert list(outputs) == [stage["module"] for stage in net.feature_info]
    for stage in net.feature_info:
        feature, at_the_time = outputs[stage["module"]]
        sizes = tuple(-(-size // stage["reduction"]) for size in (19, 16))
        assert feature.shape == (2, stage["num_chs"], *sizes)
        assert feature.max() > 0 and (feature.min() == 0 if network in RECTIFIED else feature.min() < 0)
        assert torch.equal(feature, at_the_time)
    assert net.num_features == net.fc.in_features


@pytest.mark.slow
def test_the_deepest_map_of_a_vgg_is_what_its_classifier_pools():
    net = cifar("vgg8", image_shape=(3, 32, 32)).double().train()
    taps = Taps(net, (3, 32, 32))
    logits, features = taps(torch.randn(4, 3, 32, 32, dtype=torch.float64))
    torch.testing.assert_close(features[-1].mean(dim=(2, 3)) @ net.fc.weight.T + net.fc.bias, logits)
    features[-1].sum().backward()
    assert all(p.grad is not None for p in net.block5.parameters())


@pytest.mark.parametrize("network", KINDS)
def test_a_cifar_network_is_its_children_in_sequence(network):
    net, images = settled(cifar(network)), torch.randn(2, 3, 8, 8)
    assert torch.equal(nn.Sequential(*net.children())(images), net(images))


@pytest.mark.parametrize("network", KINDS)
def test_every_parameter_that_wants_a_gradient_gets_one(network):
    net = cifar(network)
    net(torch.randn(4, 3, 8, 8)).square().sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in net.parameters())
    frozen = [name for name, p in net.named_parameters() if not p.requires_grad]
    assert frozen == (["bn.module.weight", "bn.module.bias"] if network.startswith("frskd") else [])


@pytest.mark.slow
@pytest.mark.parametrize("network", ["resnet18", "resnet50"])
def test_large_resnets_are_torchvisions_but_for_the_stem(network):
    net = settled(cifar(network))
    twin = torchvision.models.get_model(network, num_classes=10).eval()
    twin.conv1, twin.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    values = net.state_dict().values()
    twin.load_state_dict(dict(zip(twin.state_dict(), values, strict=True)))
    images = torch.randn(2, 3, 16, 16)
    assert torch.allclose(net(images), twin(images), rtol=1e-4, atol=1e-5)


def same_as(net, twin, images):
    """Whether both score alike once `twin` has the weights of `net`, in running order."""
    values = net.state_dict().values()
    twin.load_state_dict(dict(zip(twin.state_dict(), values, strict=True)))
    return torch.allclose(net(images), twin.eval()(images), rtol=1e-4, atol=1e-5)


def test_vggs_are_torchvisions_but_for_two_pools_and_the_head():
    with torch.device("meta"):  # whose own classifier is large, and goes
        twin = torchvision.models.vgg13_bn(num_classes=10, init_weights=False)
    twin.features, twin.avgpool, twin.classifier = twin.features.to_empty(device="cpu"), None, None
    pools = [i for i, layer in enumerate(twin.features) if isinstance(layer, nn.MaxPool2d)]
    for i in pools[3:]:
        twin.features[i] = nn.Identity()
    twin.avgpool, twin.classifier = nn.AdaptiveAvgPool2d(1), nn.Linear(512, 10)
    assert same_as(settled(cifar("vgg13")), twin, torch.randn(2, 3, 16, 16))


def test_mobilenetv2_is_torchvisions_but_for_strides_and_activation():
    table = [(6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    twin = torchvision.models.MobileNetV2(10, 0.5, [(1, 16, 1, 1), *table], round_nearest=1, dropout=0)
    twin.features[0][0].stride = (1, 1)
    first = twin.features[1].conv  # which torchvision does not expand, and thus gives no first 1x1
    first.insert(0, nn.Sequential(nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()))
    for name, module in list(twin.named_modules()):
        if isinstance(module, nn.ReLU6):
            twin.set_submodule(name, nn.ReLU())
    assert same_as(settled(cifar("mobilenetv2")), twin, torch.randn(2, 3, 16, 16))


def test_shufflenetv2_is_torchvisions_but_for_the_stem():
    twin = torchvision.models.shufflenet_v2_x1_0(num_classes=10)
    twin.conv1[0], twin.maxpool = nn.Conv2d(3, 24, 1, bias=False), nn.Identity()
    assert same_as(settled(cifar("shufflenetv2")), twin, torch.randn(2, 3, 16, 16))


def test_shufflenetv1_computes_what_its_paper_says():
    net, images = settled(cifar("shufflenetv1")), torch.randn(2, 3, 16, 16)
    state = net.state_dict()

    def norm(x, at):
        return F.batch_norm(x, *(state[f"{at}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")))

    def conv(x, at, groups, stride=1):
        weight = state[f"{at}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2, groups=groups)

    x = F.relu(norm(conv(images, "conv1", 1), "bn1"))
    for layer, depth in ((1, 4), (2, 8), (3, 4)):
        for block in range(depth):
            at, stride = f"layer{layer}.{block}.residual", 2 if block == 0 else 1
            groups = 1 if (layer, block) == (1, 0) else 3
            inner = F.relu(norm(conv(x, f"{at}.0", groups), f"{at}.1"))
            each = inner.shape[1] // groups  # channel i of group j moves to place i * groups + j
            inner = inner[:, [j * each + i for i in range(each) for j in range(groups)]]
            inner = F.relu(norm(conv(inner, f"{at}.4", inner.shape[1], stride), f"{at}.5"))
            inner = norm(conv(inner, f"{at}.7", 3), f"{at}.8")
            x = F.relu(inner + x if stride == 1 else torch.cat([inner, F.avg_pool2d(x, 3, 2, padding=1)], dim=1))
    x = x.mean(dim=(2, 3)) @ state["fc.weight"].T + state["fc.bias"]
    assert torch.allclose(net(images), x, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", ["wrn-16-2", "frskd-wrn-16-2", "wrn-22-1"])
def test_wide_networks_compute_what_their_papers_say(network):
    net, images = settled(cifar(network)), torch.randn(2, 3, 8, 8)
    state = net.state_dict()
    by_group = network.startswith("frskd")

    def norm(x, at):
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(state[f"{at}.{name}"] for name in names))

    def conv(x, at, stride=1):
        weight = state[f"{at}.weight"]
        return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)

    depth = int(network.split("-")[-2])
    x = conv(images, "conv1")
    for group in (1, 2, 3):
        for block in range((depth - 4) // 6):
            at, stride = f"layer{group}.{block}", 2 if group > 1 and block == 0 else 1
            active = F.relu(x if by_group else norm(x, f"{at}.bn1"))
            inner = F.relu(norm(conv(active, f"{at}.conv1", stride), f"{at}.bn2"))
            changes = state[f"{at}.conv1.weight"].shape[0] != state[f"{at}.conv1.weight"].shape[1]
            x = conv(inner, f"{at}.conv2") + (conv(active, f"{at}.shortcut", stride) if changes else x)
        if by_group:
            x = norm(x, f"layer{group}.{block + 1}")
    x = F.relu(x if by_group else norm(x, "bn")).mean(dim=(2, 3))
    assert torch.allclose(net(images), x @ state["fc.weight"].T + state["fc.bias"], rtol=1e-4, atol=1e-5)


def test_convolutions_start_with_fan_out_variance_unless_told_otherwise():
    weight = cifar("resnet20").layer3[2].conv2.weight
    assert weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.03)
    weight = cifar("resnet20", init="torch").layer3[2].conv2.weight
    assert weight.abs().max().item() == pytest.approx((1 / (9 * 64)) ** 0.5, rel=0.03)


def test_options_reach_the_cifar_constructors():
    assert cifar("wrn-10-1", drop_rate=0.25).layer2[0].drop.p == 0.25
    assert cifar("mobilenetv2", width=1.0, expansion=2).layer1[1].conv1.weight.shape == (32, 16, 1, 1)
    block = cifar("resnet8", zero_init_last=True).layer2[0]
    assert block.bn1.weight.all() and not block.bn2.weight.any()


@pytest.mark.slow
@pytest.mark.parametrize("network", ["shufflenetv1", "shufflenetv2"])
def test_a_shuffling_stage_compiles_to_one_graph(network, untyped):
    stage, x = cifar(network).eval().layer1[:2], torch.randn(2, 24, 8, 8)
    compiled = torch.compile(stage, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), stage(x))


@pytest.mark.slow
def test_a_cifar_network_compiles_to_one_graph(untyped):
    net, images = cifar("frskd-wrn-10-1").eval(), torch.randn(2, 3, 8, 8)
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    assert torch.equal(compiled(images), net(images))


@pytest.mark.slow
@pytest.mark.parametrize("name", list_students("cifar:*"))
def test_every_listed_cifar_network_can_be_built(name):
    with torch.device("meta"):
        net = build_student(name, num_classes=3, image_shape=(3, 8, 8))
    assert net.fc.out_features == 3


@pytest.mark.slow
def test_a_cifar_network_is_built_without_importing_other_libraries():
    code = """
import sys
from selfdistill.models import build_student
build_student("cifar:resnet8", num_classes=2, image_shape=(3, 8, 8))
print(*{"timm", "torchvision", "segmentation_models_pytorch"} & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
