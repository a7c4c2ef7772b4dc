"""Taps: which feature maps are found, that they are true, and that the student is left as it was."""

import copy
import pickle

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.torch_version import TorchVersion

from selfdistill.features.extractor import Tap, Taps
from selfdistill.models import build_student

SHAPE = (3, 32, 32)


def conv(c: int, d: int, stride: int = 1, inplace: bool = True) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c, d, 3, stride, 1, bias=False), nn.BatchNorm2d(d), nn.ReLU(inplace))


class Head(nn.Module):
    """A part of a network that pools and classifies."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(x).flatten(1))


class Staged(nn.Module):
    """The usual shape of a CNN: a stem, stages, a head; dropout makes training mode random."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 4)
        self.stages = nn.Sequential(conv(4, 6), nn.Sequential(conv(6, 8, 2), conv(8, 8)), conv(8, 10, 2))
        self.drop = nn.Dropout(0.5)
        self.head = Head(10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.stages(self.stem(x))))


class Protocol(Staged):
    """A network with timm's protocol, and the ways in which it can be untrue."""

    def __init__(self, lie: str = "") -> None:
        super().__init__()
        self.lie = lie

    def forward_features(self, x: Tensor) -> Tensor:
        return self.stages(self.stem(x))

    def forward_head(self, x: Tensor) -> Tensor:
        drop = not (self.lie == "training" and self.training)
        return self.head(self.drop(x) if drop else x)

    def forward_intermediates(self, x: Tensor, indices=None, stop_early=False, intermediates_only=False, **options):
        maps = []
        x = self.stem(x)
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if indices is None or i in indices:
                maps.append(x)
                if stop_early:
                    break
                if self.lie == "overwritten":
                    x = x.mul_(2)
        if self.lie == "scores":
            x = x + 1
        return maps if intermediates_only else (x, maps)


def vit(img_size, depth: int, patch_size: int = 8, **options) -> nn.Module:
    options |= {"img_size": img_size, "depth": depth, "patch_size": patch_size, "embed_dim": 12}
    return timm.create_model("vit_tiny_patch16_224", num_classes=5, **options)


def names(taps: Taps) -> list[str]:
    return [tap.name for tap in taps]


def plain(seed: int = 0, shape: tuple[int, int, int] = SHAPE, b: int = 2) -> Tensor:
    return torch.randn(b, *shape, generator=torch.Generator().manual_seed(seed))


# What is found


def test_the_last_map_at_each_resolution_is_a_stage():
    taps = Taps(Staged(), SHAPE)
    assert list(taps) == [
        Tap("stages.0", 6, (32, 32)),
        Tap("stages.1", 8, (16, 16)),
        Tap("stages", 10, (8, 8)),
    ]
    assert taps.source == "dry run" and len(taps) == 3 and taps.channels == [6, 8, 10]


@pytest.mark.parametrize("size", [32, 64])
def test_a_resnet_gives_its_four_layers_and_not_its_stem_or_its_pooled_head(size):
    net = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5)
    assert list(Taps(net, (3, size, size))) == [
        Tap(f"layer{i + 1}", 64 * 2**i, (size // 2 ** (i + 2), size // 2 ** (i + 2))) for i in range(4)
    ]


def test_gates_pools_and_convolutional_classifiers_are_no_stages():
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = conv(3, 8, 2), conv(8, 8, 2)
            self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid())
            self.classifier = nn.Conv2d(8, 5, 1)
            self.pool = nn.AdaptiveAvgPool2d(1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv1(x)
            x = self.conv2(x * self.gate(x))
            x = x * self.gate(x)
            return self.pool(self.classifier(x)).flatten(1)

    assert names(Taps(Gated(), SHAPE)) == ["conv1", "conv2"]


def test_a_point_made_by_strides_is_a_stage():
    net = nn.Sequential(conv(3, 4, 2), nn.MaxPool2d(16), nn.Conv2d(4, 8, 1), nn.Flatten(), nn.Linear(8, 5))
    assert [tap.size for tap in Taps(net, SHAPE)] == [(16, 16)]
    net = nn.Sequential(conv(3, 4, 2), conv(4, 6, 8), conv(6, 8, 2), nn.Flatten(), nn.Linear(8, 5))
    assert [tap.size for tap in Taps(net, SHAPE)] == [(16, 16), (2, 2), (1, 1)]


def test_maps_that_grow_again_are_no_stages():
    class Hourglass(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down1, self.down2, self.up, self.head = conv(3, 4, 2), conv(4, 8, 2), conv(8, 6), Head(6)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.up(F.interpolate(self.down2(self.down1(x)), scale_factor=2.0)))

    assert names(Taps(Hourglass(), SHAPE)) == ["down1", "down2"]


def test_the_norm_before_a_strided_convolution_belongs_to_the_next_stage():
    net = torchvision.models.convnext.ConvNeXt(
        [torchvision.models.convnext.CNBlockConfig(4, 8, 1), torchvision.models.convnext.CNBlockConfig(8, None, 1)],
        num_classes=5,
    )
    assert names(Taps(net, SHAPE)) == ["features.1", "features"]


def test_of_a_network_with_one_resolution_four_evenly_spaced_blocks_are_taken():
    net = vit(SHAPE[1:], 6).eval()
    taps = Taps(net, SHAPE)
    assert (taps.source, names(taps)) == ("forward_intermediates", [f"blocks.{i}" for i in (0, 2, 3, 5)])
    hidden = Taps(nn.Sequential(net), SHAPE)  # has no protocol and no feature_info
    assert (hidden.source, names(hidden)) == ("dry run", [f"0.blocks.{i}" for i in (0, 2, 3, 5)])
    torch.testing.assert_close(hidden(plain()), taps(plain()))


def test_feature_info_says_which_modules_are_the_stages():
    net = Staged()
    net.feature_info = [
        {"module": "stem", "num_chs": 4, "reduction": 1},
        {"module": "stages.1.0", "num_chs": 8, "reduction": 2},
    ]
    taps = Taps(net, SHAPE)
    assert (taps.source, names(taps)) == ("feature_info", ["stem", "stages.1.0"])
    net.feature_info[0]["num_chs"] = 5
    assert Taps(net, SHAPE).source == "dry run"


def test_timms_protocol_is_used_where_it_is_true():
    net = Protocol()
    taps = Taps(net, SHAPE)
    assert (taps.source, names(taps)) == ("forward_intermediates", ["stages.0", "stages.1", "stages"])
    assert not any(m._forward_hooks for m in net.modules())


@pytest.mark.parametrize("lie", ["scores", "training", "overwritten"])
def test_timms_protocol_is_not_used_where_it_is_untrue(lie):
    assert Taps(Protocol(lie), SHAPE).source == "dry run"


def test_the_protocol_is_checked_behind_a_classifier_of_zeros():
    net = Protocol("scores")
    nn.init.zeros_(net.head.fc.weight)
    assert Taps(net, SHAPE).source == "dry run"


@pytest.mark.slow
def test_maps_that_no_module_emits_have_names_that_can_be_given_back():
    net = timm.create_model("hiera_tiny_224", num_classes=5, img_size=64, embed_dim=8, num_heads=1).eval()
    taps = Taps(net, (3, 64, 64))
    assert names(taps)[-2:] == ["forward_intermediates[2]", "forward_intermediates[3]"]
    named = Taps(net, (3, 64, 64), names(taps)[-2:])
    assert list(named) == list(taps)[-2:]
    assert torch.equal(named(plain(0, (3, 64, 64)))[1][1], taps(plain(0, (3, 64, 64)))[1][3])

    with pytest.raises(ValueError, match=r"Hiera has no submodule 'forward_intermediates\[99\]'"):
        Taps(net, (3, 64, 64), ["forward_intermediates[99]"])


# Which maps are rectified


@pytest.mark.parametrize(
    ("make", "rectified"),
    [
        (lambda: torchvision.models.resnet18(num_classes=5), True),  # the dry run
        (lambda: timm.create_model("resnet18", num_classes=5), True),  # timm's protocol
        (lambda: build_student("cifar:wrn-16-2", num_classes=5, image_shape=SHAPE), True),  # feature_info
        (lambda: torchvision.models.mobilenet_v2(num_classes=5, width_mult=0.25), False),  # linear bottlenecks
        (lambda: vit(32, 2), False),
    ],
)
def test_a_map_is_rectified_where_a_relu_layer_returns_it(make, rectified):
    student = make()
    shape = (3, 64, 64) if isinstance(student, torchvision.models.ResNet | timm.models.ResNet) else SHAPE
    taps = Taps(student, shape)
    assert taps.rectified == [rectified] * len(taps)
    if rectified:
        assert all(feature.min() >= 0 for feature in taps(plain(shape=shape))[1])


class Shifted(nn.Module):
    """Subtracts 1 in place from what it is given."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sub_(1)


class NoisyInTraining(nn.Module):
    """Adds noise, but in training mode only."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x) if self.training else x


@pytest.mark.parametrize("last", [Shifted, NoisyInTraining, nn.SiLU])
def test_a_map_that_is_changed_after_its_relu_is_not_rectified(last):
    net = Staged()
    net.stages[0] = nn.Sequential(conv(4, 6), last())
    assert Taps(net, SHAPE).rectified == [False, True, True]


# Names


def test_named_maps_come_in_running_order():
    net = Staged().eval()
    taps = Taps(net, SHAPE, ["stages.2", "stem"])
    assert (taps.source, names(taps)) == ("names", ["stem", "stages.2"])
    assert torch.equal(taps(plain())[1][0], net.stem(plain()))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["stage.1"], "Staged has no submodule 'stage.1'; did you mean 'stages.1'"),
        (["zzz"], "the stages found are stages.0, stages.1, stages"),
        (["head.fc"], r"'head.fc' returns a tensor \(2, 5\), no map of 3x32x32 images"),
        (["stem.1"], "the map of 'stem.1' is overwritten in place by stem.2"),
        (["stem", "stem"], "must be a list of different submodule names"),
        ([], "must be a list of different submodule names"),
        ([""], "has no submodule ''"),
        (["forward_intermediates[0]"], r"has no submodule 'forward_intermediates\[0\]'"),
    ],
)
def test_names_that_are_no_maps_are_refused_in_one_sentence(given, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        Taps(Staged(), SHAPE, given)
    assert "\n" not in str(error.value)


def test_one_string_is_not_taken_for_a_list():
    with pytest.raises(ValueError, match="'stem' must be a list"):
        Taps(Staged(), SHAPE, "stem")


def test_a_map_overwritten_in_training_mode_only_is_refused():
    class Dropped(Staged):
        def __init__(self) -> None:
            super().__init__()
            self.drop = nn.Dropout(0.5, inplace=True)

    with pytest.raises(ValueError, match="'stages.2' is overwritten in place, or has another size, in training mode"):
        Taps(Dropped(), SHAPE, ["stages.2"])
    assert names(Taps(Dropped(), SHAPE)) == ["stages.0", "stages.1", "drop"]


def test_a_submodule_that_does_not_run_is_refused():
    net = Staged()
    net.spare = nn.Conv2d(3, 3, 1)
    with pytest.raises(ValueError, match="'spare' returns no tensor when Staged runs"):
        Taps(net, SHAPE, ["spare"])


# Layouts


def tiny_swin() -> nn.Module:
    return torchvision.models.SwinTransformer([4, 4], 8, [1, 1, 1], [1, 1, 1], [4, 4], num_classes=5)


@pytest.mark.parametrize(
    ("shape", "sizes"), [(SHAPE, [(8, 8), (4, 4), (2, 2)]), ((3, 93, 121), [(23, 30), (12, 15), (6, 8)])]
)
def test_channels_last_maps_become_channels_first(shape, sizes):
    net = tiny_swin().eval()
    taps = Taps(net, shape, ["features.1", "features.3", "features.5"])
    assert list(taps) == [Tap(f"features.{2 * i + 1}", 8 * 2**i, size) for i, size in enumerate(sizes)]
    images = plain(0, shape)
    first = net.features[:2](images)
    assert torch.equal(taps(images)[1][0], first.permute(0, 3, 1, 2))
    assert [tap.size for tap in Taps(net, shape)] == sizes


def test_a_map_as_wide_as_it_has_channels_is_read_like_its_siblings():
    assert [tap.channels for tap in Taps(tiny_swin(), SHAPE)] == [8, 16, 32]  # the first is (b, 8, 8, 8)
    net = tiny_swin().eval()
    assert torch.equal(Taps(net, SHAPE, ["features.1"])(plain())[1][0], net.features[:2](plain()).permute(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("shape", "options", "grid"),
    [
        (SHAPE, {"patch_size": 8, "reg_tokens": 4}, (4, 4)),
        ((3, 93, 121), {"patch_size": 16}, (5, 7)),
        ((3, 48, 32), {"patch_size": 8, "class_token": False, "global_pool": "avg"}, (6, 4)),
    ],
)
@pytest.mark.parametrize("hidden", [False, True])
def test_tokens_become_maps_without_their_prefix(shape, options, grid, hidden):
    net = vit(shape[1:], 2, **options).eval()
    name = "0.blocks.1" if hidden else "blocks.1"
    taps = Taps(nn.Sequential(net) if hidden else net, shape, [name])
    assert list(taps) == [Tap(name, 12, grid)]
    images = plain(0, shape)
    (expected,) = net.forward_intermediates(images, indices=[1], intermediates_only=True)
    (feature,) = taps(images)[1]
    torch.testing.assert_close(feature, expected)


def test_tokens_of_patches_that_no_convolution_made_find_their_grid():
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Linear(3 * 64, 8)
            self.blocks = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8))
            self.fc = nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            tokens = self.embed(F.unfold(x, 8, stride=8).transpose(1, 2))
            tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1)
            return self.fc(self.blocks(tokens)[:, 0])

    taps = Taps(Patches(), (3, 32, 48))
    assert list(taps) == [Tap(f"blocks.{i}", 8, (4, 6)) for i in range(3)]


# What a call gives


@pytest.mark.parametrize("make", [Staged, Protocol])
def test_the_scores_are_the_students_own(make):
    net = make().eval()
    assert torch.equal(Taps(net, SHAPE)(plain())[0], net(plain()))


@pytest.mark.parametrize("make", [Staged, Protocol])
def test_scores_and_maps_carry_gradients_in_training_mode(make):
    net = make().train()
    logits, features = Taps(net, SHAPE)(plain(b=4))
    (logits.sum() + sum(f.square().mean() for f in features)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert [f.shape for f in features] == [(4, 6, 32, 32), (4, 8, 16, 16), (4, 10, 8, 8)]


@pytest.mark.parametrize("make", [Staged, Protocol])
def test_it_runs_under_autocast(make):
    taps = Taps(make().train(), SHAPE)
    with torch.autocast("cpu", torch.bfloat16):
        logits, features = taps(plain())
    assert logits.dtype == torch.bfloat16 and all(f.isfinite().all() for f in features)


@pytest.mark.skipif(TorchVersion(torch.__version__) < (2, 11), reason="it cannot compile what the type checks wrap")
@pytest.mark.parametrize("make", [Staged, Protocol])
@pytest.mark.slow
def test_it_compiles_to_one_graph(make, untyped):
    taps = Taps(make().eval(), SHAPE)
    torch._dynamo.reset()
    logits, features = torch.compile(taps.__call__, backend="eager", fullgraph=True)(plain())
    expected_logits, expected = taps(plain())
    torch.testing.assert_close(logits, expected_logits)
    torch.testing.assert_close(features, expected)


@pytest.mark.parametrize("make", [Staged, Protocol])
def test_a_copy_works_and_is_independent(make):
    owner = {"student": make().eval()}
    owner["taps"] = Taps(owner["student"], SHAPE)
    twin = copy.deepcopy(owner)
    assert twin["taps"].student is twin["student"]
    before = owner["taps"](plain())
    with torch.no_grad():
        for p in twin["student"].parameters():
            p.zero_()
    logits, features = twin["taps"](plain())
    assert not logits.any() and not any(f.any() for f in features)
    torch.testing.assert_close(owner["taps"](plain()), before)


def test_student_and_taps_can_be_pickled():
    student, taps = pickle.loads(pickle.dumps((net := Staged().eval(), Taps(net, SHAPE))))
    assert taps.student is student and torch.equal(taps(plain())[1][1], Taps(net, SHAPE)(plain())[1][1])


def test_hooks_are_placed_once():
    net = Staged()
    taps = Taps(net, SHAPE)
    hooks = [len(m._forward_hooks) for m in net.modules()]
    assert sum(hooks) == len(taps) == 3
    taps(plain())
    assert [len(m._forward_hooks) for m in net.modules()] == hooks


# The dry run


@pytest.mark.parametrize("make", [Staged, Protocol])
def test_the_dry_run_leaves_no_trace(make):
    net = make().train()
    net.stages[1].eval()  # a part that its owner froze
    modes, state = [m.training for m in net.modules()], copy.deepcopy(net.state_dict())
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    Taps(net, SHAPE)
    assert torch.equal(torch.rand(2), expected)
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(state[key], value) for key, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_a_failed_dry_run_leaves_no_trace_either():
    net = Staged().train()
    net.head.fc = nn.Linear(11, 5)
    with pytest.raises(ValueError, match="Staged does not run on 3x32x32 images"):
        Taps(net, SHAPE)
    assert all(m.training and not m._forward_hooks for m in net.modules())


def test_a_student_in_half_precision_is_run_in_it():
    net = Staged().bfloat16()
    assert Taps(net, SHAPE)(plain().bfloat16())[1][0].dtype == torch.bfloat16


class Returns(nn.Module):
    """Gives `value(x)` for images x, in training mode only if so asked."""

    def __init__(self, value, training: bool = False) -> None:
        super().__init__()
        self.body, self.value, self.only = Staged(), value, training

    def forward(self, x: Tensor):
        scores = self.body(x)
        return self.value(scores) if self.training or not self.only else scores


@pytest.mark.parametrize(
    ("student", "sentence"),
    [
        (Returns(lambda s: (s, s)), r"returns a tuple for 2 images, but .* one \(b, k\) or \(b, k, h, w\) tensor"),
        (Returns(lambda s: {"logits": s}, training=True), "returns a dict for 2 images in training mode"),
        (Returns(lambda s: s[:, :, None]), r"returns a tensor \(2, 5, 1\) for 2 images"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3072, 5)), "no feature map was found in Sequential .* taps="),
        (vit(64, 1), "does not run on 3x32x32 images .* image size"),
        (nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(5)), "parameters without values"),
        (Staged().to("meta"), "Staged has parameters without values"),
    ],
)
def test_students_that_cannot_be_tapped_are_refused_in_one_sentence(student, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        Taps(student, SHAPE)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_compiled_student_is_refused():  # made here: it loads the compiler
    with pytest.raises(ValueError, match="OptimizedModule is compiled"):
        Taps(torch.compile(Staged()), SHAPE)


def test_a_student_without_parameters_is_run_on_the_cpu():
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.AvgPool2d(4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.pool(x).flatten(2)
            return torch.cat([x.amax(dim=2), x.amin(dim=2)], dim=1)

    assert list(Taps(Fixed(), SHAPE)) == [Tap("pool", 3, (8, 8))]
