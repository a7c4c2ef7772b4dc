"""Networks by name: what they compute, what they carry, and the sentences for what cannot be built."""

import copy
import subprocess
import sys
from urllib.error import URLError

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import save_file
from torch import nn
from torchvision.models._api import WeightsEnum

from helpers.students import refused_student
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


def settled(net):
    """The net in eval mode with batch norms that are not the identity."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias, std=0.2)
    return net.eval()


@pytest.mark.parametrize(("network", "count"), PARAMETERS.items())
def test_parameter_counts_are_the_published_ones(network, count):
    with torch.device("meta"):
        net = cifar(network, num_classes=100)
    assert sum(p.numel() for p in net.parameters()) == count


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


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(32, 32), (28, 28), (9, 13)])
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


@pytest.mark.parametrize("network", ["shufflenetv1", "shufflenetv2"])
def test_a_shuffling_stage_compiles_to_one_graph(network):
    stage, x = cifar(network).eval().layer1[:2], torch.randn(2, 24, 8, 8)
    compiled = torch.compile(stage, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), stage(x))


def test_a_cifar_network_compiles_to_one_graph():
    net, images = cifar("frskd-wrn-10-1").eval(), torch.randn(2, 3, 8, 8)
    compiled = torch.compile(net, fullgraph=True, backend="eager")
    assert torch.equal(compiled(images), net(images))


@pytest.mark.parametrize(
    ("network", "options"),
    [
        ("resnet10t", {"drop_rate": 0.5}),
        ("test_vit", {"img_size": (32, 48)}),
        ("levit_128s", {"img_size": (32, 48)}),
        ("test_byobnet.r160_in1k", {}),
    ],
)
def test_a_timm_student_is_an_untouched_timm_network(network, options):
    torch.manual_seed(0)
    twin = timm.create_model(network, num_classes=5, in_chans=1, **options)
    torch.manual_seed(0)
    free = {name: value for name, value in options.items() if name != "img_size"}
    net = build_student(f"timm:{network}", num_classes=5, image_shape=(1, 32, 48), **free)
    assert type(net) is type(twin) and net.training
    assert list(net.state_dict()) == list(twin.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), twin.state_dict().values(), strict=True))
    images = torch.randn(2, 1, 32, 48)
    assert torch.equal(net.eval()(images), twin.eval()(images))
    assert getattr(net, "drop_rate", 0) == free.get("drop_rate", 0)


def test_values_that_a_network_caches_in_eval_mode_do_not_outlive_the_trial_run():
    def build():
        return build_student("timm:levit_128s", num_classes=5, image_shape=(3, 32, 32))

    torch.manual_seed(0)
    trained, images = build(), torch.randn(2, 3, 32, 32)
    for name, parameter in trained.named_parameters():
        if "attention_bias" in name:
            nn.init.normal_(parameter)
    fresh = build()
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh.eval()(images), trained.eval()(images))


def test_timm_networks_that_resize_images_themselves_keep_their_own_size():
    net = build_student("timm:crossvit_tiny_240", num_classes=5, image_shape=(3, 64, 64))
    assert net(torch.randn(2, 3, 64, 64)).shape == (2, 5)


def test_timms_pretrained_weights_fit_other_classes_and_channels(tmp_path):
    source = timm.create_model("resnet10t")
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    local = {"file": str(tmp_path / "weights.safetensors")}
    net = build_student(
        "timm:resnet10t", num_classes=5, image_shape=(1, 32, 32), pretrained=True, pretrained_cfg_overlay=local
    )
    assert torch.equal(net.layer2[0].conv1.weight, source.layer2[0].conv1.weight)
    assert torch.allclose(net.conv1[0].weight, source.conv1[0].weight.sum(dim=1, keepdim=True))
    assert net.fc.out_features == 5


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


def refusal(name, image_shape=(3, 16, 16), **options):
    return refused_student(name, num_classes=10, image_shape=image_shape, **options)


@pytest.mark.parametrize(("name", "options", "said"), ERRORS)
def test_what_cannot_be_built_is_said_in_one_sentence(name, options, said):
    assert said in refusal(name, **options)


@pytest.mark.parametrize(("name", "options", "said"), OWN_ERRORS)
def test_what_is_wrong_with_ones_own_network_is_said_in_one_sentence(own, name, options, said):
    assert said in refusal(name, **options)


def test_a_torchvision_vit_wants_square_images():
    assert "takes square images only, not 32x64" in refusal("torchvision:vit_b_32", (3, 32, 64))


@pytest.mark.parametrize("source", ["timm", "torchvision"])
def test_weights_that_cannot_be_fetched_are_one_sentence(monkeypatch, source):
    def unreachable(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(timm, "create_model", unreachable)
    monkeypatch.setattr(WeightsEnum, "get_state_dict", unreachable)
    sentence = refusal(f"{source}:resnet18", pretrained=True)
    assert f"weights of {source}:resnet18 could not be fetched" in sentence and "no route to host" in sentence


def test_weights_that_do_not_fit_are_one_sentence(monkeypatch):
    serve(monkeypatch, torchvision.models.resnet18())
    sentence = refusal("torchvision:resnet18", pretrained=True, norm_layer=nn.Identity)
    assert sentence.endswith("do not fit the options given: bn1.weight differs")


def test_students_are_listed_with_their_prefix_and_found_without():
    assert list_students("resnet18") == ["cifar:resnet18", "torchvision:resnet18", "timm:resnet18"]
    assert "cifar:frskd-wrn-16-2" in list_students("cifar:*")
    assert all(name.startswith("timm:convnext_a") for name in list_students("timm:convnext_a*"))
    assert len(list_students()) > 1000 and list_students("no such network") == []


@pytest.mark.parametrize("name", list_students("cifar:*"))
def test_every_listed_cifar_network_can_be_built(name):
    with torch.device("meta"):
        net = build_student(name, num_classes=3, image_shape=(3, 8, 8))
    assert net.fc.out_features == 3


def test_a_cifar_network_is_built_without_importing_other_libraries():
    code = """
import sys
from selfdistill.models import build_student
build_student("cifar:resnet8", num_classes=2, image_shape=(3, 8, 8))
print(*{"timm", "torchvision", "segmentation_models_pytorch"} & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
