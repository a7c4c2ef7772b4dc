"""The self-teachers against a slow reading of their graph, and on sizes that the graph does not foresee."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reference import frskd as slow
from selfdistill.modules.bifpn import BiFPN, BiFPNc, shrink
from selfdistill.modules.blocks import ConvBNReLU, Pointwise, enlarge

CHANNELS = [4, 6, 5, 8]
HALVING = {
    "even": [(16, 16), (8, 8), (4, 4), (2, 2)],
    "odd": [(11, 11), (6, 6), (3, 3), (2, 2)],
    "oblong": [(9, 14), (5, 7), (3, 4), (2, 2)],
    "to one": [(5, 8), (3, 4), (2, 2), (1, 1)],
}
OTHERS = {
    "border lost": [(15, 15), (7, 7), (3, 3)],
    "equal": [(5, 5), (5, 5), (3, 3)],
    "all equal": [(4, 4), (4, 4), (4, 4), (4, 4)],
    "one axis": [(8, 6), (4, 6), (2, 6)],
    "by four": [(16, 16), (4, 4), (1, 1)],
    "from one": [(1, 1), (1, 1)],
    "growing": [(3, 3), (5, 4), (10, 9)],
    "halving and growing": [(8, 4), (4, 8)],
}
every_net = pytest.mark.parametrize(("net", "options"), [(BiFPNc, {}), (BiFPN, {"num_channels": 8})])


def maps(sizes, channels=CHANNELS, rows=3, dtype=torch.float64):
    """Random maps, not rectified, so that a ReLU left out would show."""
    return [torch.randn(rows, c, *size, dtype=dtype) for c, size in zip(channels, sizes, strict=False)]


def perturbed(net):
    """In float64, with norms and fusion weights away from where they start; one fusion weight is negative."""
    net = net.double().train()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.4 * torch.randn_like(parameter))
        for name, parameter in net.named_parameters():
            if name.endswith("fuse_up.0.weight"):
                parameter[0] = -0.3
    return net


def compare(net, features, **graph):
    weights = slow.Weights({name: value.numpy() for name, value in net.state_dict().items()})
    logits, refined = net(features)
    expected, expected_maps = slow.self_teacher([each.numpy() for each in features], weights, **graph)
    assert weights.all_read()
    np.testing.assert_allclose(logits.detach().numpy(), expected, rtol=1e-9, atol=1e-11)
    for ours, theirs in zip(refined, expected_maps, strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("preactivation", [False, True])
@pytest.mark.parametrize(("width", "depth"), [(1, 1), (2, 1), (1, 2), (2, 2), (1, 3)])
@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_bifpnc_agrees_with_the_reference(levels, width, depth, preactivation):
    net = BiFPNc(CHANNELS[:levels], 7, width=width, depth=depth, preactivation=preactivation)
    compare(perturbed(net), maps(HALVING["oblong"][:levels]), depth=depth, preactivation=preactivation)


@pytest.mark.parametrize("repeat", [1, 2, 3])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("levels", [2, 3, 4])
def test_bifpn_agrees_with_the_reference(levels, depth, repeat):
    net = BiFPN(CHANNELS[:levels], 7, num_channels=6, depth=depth, repeat=repeat)
    compare(perturbed(net), maps(HALVING["odd"][:levels]), depth=depth, repeat=repeat, fixed_width=True)


@pytest.mark.parametrize("sizes", [*HALVING.values(), OTHERS["equal"], OTHERS["one axis"], OTHERS["from one"]], ids=str)
def test_every_size_the_graph_foresees_agrees_with_the_reference(sizes):
    levels = len(sizes)
    compare(perturbed(BiFPNc(CHANNELS[:levels], 7)), maps(sizes), depth=2)
    fixed = perturbed(BiFPN(CHANNELS[:levels], 7, num_channels=5))
    compare(fixed, maps(sizes), depth=2, fixed_width=True)


@every_net
@pytest.mark.parametrize("sizes", [*HALVING.values(), *OTHERS.values()], ids=[*HALVING, *OTHERS])
def test_refined_maps_have_the_sizes_of_the_features(net, options, sizes):
    channels = CHANNELS[: len(sizes)]
    teacher = net(channels, 7, **options).train()
    logits, refined = teacher(maps(sizes, dtype=torch.float32))
    assert logits.shape == (3, 7)
    assert [tuple(each.shape) for each in refined] == [(3, c, *s) for c, s in zip(teacher.channels, sizes, strict=True)]
    assert teacher.channels == ([2 * c for c in channels] if net is BiFPNc else [8] * len(channels))
    (logits.sum() + sum(each.square().mean() for each in refined)).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in teacher.parameters())


@every_net
def test_gradients_of_the_features_are_the_slopes_of_the_reference(net, options):
    teacher, features = perturbed(net(CHANNELS[:3], 7, **options)), maps(HALVING["odd"][:3])
    aims = [torch.randn(3, 7, dtype=torch.float64), *maps(HALVING["odd"][:3], teacher.channels)]
    logits, refined = teacher([each.requires_grad_() for each in features])
    sum((aim * out).sum() for aim, out in zip(aims, [logits, *refined], strict=True)).backward()
    weights = slow.Weights({name: value.numpy() for name, value in teacher.state_dict().items()})

    def value(shifted):
        scores, deep = slow.self_teacher(shifted, weights, depth=2, fixed_width=net is BiFPN)
        return sum((aim.numpy() * out).sum() for aim, out in zip(aims, [scores, *deep], strict=True))

    for level, feature in enumerate(features):
        directions = [np.zeros(each.shape) for each in features]
        directions[level] = np.random.default_rng(level).normal(size=feature.shape)
        ends = [
            value([f.detach().numpy() + h * d for f, d in zip(features, directions, strict=True)])
            for h in (1e-6, -1e-6)
        ]
        slope = (feature.grad.numpy() * directions[level]).sum()
        assert slope == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5)


@every_net
def test_refined_maps_are_rectified_unless_before_their_activation(net, options):
    features = maps(HALVING["even"][:3])
    after = perturbed(net(CHANNELS[:3], 7, **options))
    before = net(CHANNELS[:3], 7, preactivation=True, **options).double()
    before.load_state_dict(after.state_dict())
    (logits, rectified), (same, raw) = after(features), before(features)
    assert torch.equal(logits, same)
    for one, other in zip(rectified, raw, strict=True):
        assert torch.equal(one, other.relu())
        assert other.min() < 0


@every_net
def test_features_are_left_as_they_were(net, options):
    features = maps(HALVING["even"][:3])
    copies = [each.clone() for each in features]
    net(CHANNELS[:3], 7, **options).double()(features)
    assert all(torch.equal(one, other) for one, other in zip(features, copies, strict=True))


@every_net
def test_order_of_the_rows_is_kept(net, options):
    teacher, features = perturbed(net(CHANNELS[:3], 7, **options)), maps(HALVING["odd"][:3])
    order = torch.tensor([2, 0, 1])
    logits, refined = teacher(features)
    shuffled_logits, shuffled = teacher([each[order] for each in features])
    torch.testing.assert_close(shuffled_logits, logits[order])
    for one, other in zip(shuffled, refined, strict=True):
        torch.testing.assert_close(one, other[order])


@every_net
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_norms_are_those_the_refined_maps_come_out_of(net, options, levels):
    teacher = net(CHANNELS[:levels], 7, preactivation=True, **options).double()
    norms, emitted = teacher.norms(), []
    for norm in norms:
        norm.register_forward_hook(lambda module, args, output: emitted.append(output.clone()))
    _, refined = teacher(maps(HALVING["even"][:levels]))
    assert len(norms) == levels
    expected = emitted if levels > 1 else [emitted[0].relu()]  # a lone map is a lateral, after its ReLU
    assert all(torch.equal(one, other) for one, other in zip(expected, refined, strict=True))


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_norms_of_several_passes_are_those_of_the_last(levels):
    teacher = BiFPN(CHANNELS[:levels], 7, num_channels=8, repeat=2)
    own = set(map(id, teacher.passes[-1].modules())) if levels > 1 else set(map(id, teacher.modules()))
    norms = teacher.norms()
    assert len(norms) == levels
    assert all(isinstance(norm, torch.nn.BatchNorm2d) and id(norm) in own for norm in norms)


def test_a_fusion_weight_below_zero_silences_its_map():
    teacher = BiFPNc(CHANNELS[:2], 7).double().eval()
    features = maps(HALVING["even"][:2])
    with torch.no_grad():
        teacher.passes[0].fuse_up[0].weight[:] = torch.tensor([1.0, -5.0])
        before, _ = teacher(features)
        after, _ = teacher([3 * features[0], features[1]])  # reaches the deepest map through the silenced input alone
    assert torch.equal(before, after)


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_every_parameter_of_a_self_teacher_learns_from_its_scores(levels):
    teacher = BiFPNc(CHANNELS[:levels], 7)
    teacher(maps(HALVING["even"][:levels], rows=8, dtype=torch.float32))[0].square().sum().backward()
    assert [name for name, p in teacher.named_parameters() if p.grad is None or not p.grad.count_nonzero()] == []


def test_enlarge_doubles_every_position():
    feature = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    rows = [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
    assert enlarge(feature, torch.empty(1, 9, 4, 4))[0, 0].tolist() == rows
    assert enlarge(feature, torch.empty(1, 9, 3, 4))[0, 0].tolist() == rows[:3]


def test_shrink_takes_the_largest_of_windows_three_wide():
    ramp = torch.arange(1.0, 6.0).view(1, 1, 1, 5)
    assert shrink(ramp[..., :4], torch.empty(1, 1, 1, 2)).flatten().tolist() == [3, 4]  # 1 2 3 | 3 4
    assert shrink(ramp, torch.empty(1, 1, 1, 3)).flatten().tolist() == [2, 4, 5]  # 1 2 | 2 3 4 | 4 5


def test_maps_of_equal_size_are_not_resampled():
    feature = torch.rand(1, 2, 3, 5)
    assert shrink(feature, feature) is feature
    assert enlarge(feature, feature) is feature


@pytest.mark.parametrize("weight", [0.7, 0.0])
@pytest.mark.parametrize(
    ("small", "large"), [((2, 2), (4, 4)), ((3, 2), (3, 6)), ((1, 1), (4, 2)), ((3, 3), (5, 6)), ((3, 2), (3, 2))]
)
def test_weighing_and_enlarging_last_changes_nothing(small, large, weight):
    last = perturbed(ConvBNReLU(4, 6))
    first, like = copy.deepcopy(last), torch.empty(3, 6, *large)
    feature = torch.randn(3, 4, *small, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(weight, dtype=torch.float64, requires_grad=True)
    other = feature.detach().clone().requires_grad_()
    direct = torch.tensor(weight, dtype=torch.float64, requires_grad=True)
    for _ in range(2):
        ours, theirs = last(feature, scale, like), direct * nn.Sequential.forward(first, enlarge(other, like))
        torch.testing.assert_close(ours, theirs)
        ours.square().sum().backward()
        theirs.square().sum().backward()
    torch.testing.assert_close(feature.grad, other.grad)
    torch.testing.assert_close(scale.grad, direct.grad)
    for (name, own), reference in zip(last.named_parameters(), first.parameters(), strict=True):
        torch.testing.assert_close(own.grad, reference.grad, msg=name)
    for own, reference in zip(last.buffers(), first.buffers(), strict=True):
        torch.testing.assert_close(own, reference, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(last.eval()(feature, scale, like), direct * first.eval()(enlarge(other, like)))


@pytest.mark.parametrize("size", [(3, 2), (5, 4)])  # fewer positions than channels, and more
def test_a_matrix_product_is_the_convolution_of_one_position(size):
    point = Pointwise(8, 12)
    feature = torch.randn(3, 8, *size).to(memory_format=torch.channels_last)
    results = []
    for make in (point, lambda x: F.conv2d(x, point.weight)):
        given = feature.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = make(given.bfloat16())
        results.append((out, *torch.autograd.grad(out.float().square().sum(), (given, point.weight))))
    assert results[0][0].is_contiguous(memory_format=torch.channels_last)
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-2, atol=2e-2)


@every_net
def test_only_maps_that_are_not_rectified_yet_are_rectified(net, options, monkeypatch):
    features = maps(HALVING["even"][:3])
    rectified = [feature.relu() for feature in features]
    teacher = perturbed(net(CHANNELS[:3], 7, **options))
    expected = teacher(features)
    teacher.rectified = (True, False, True)
    given, relu = [], F.relu
    monkeypatch.setattr(F, "relu", lambda x, **options: given.append(x) or relu(x, **options))
    torch.testing.assert_close(teacher([rectified[0], features[1], rectified[2]]), expected, rtol=0, atol=0)
    assert [any(x is feature for x in given) for feature in (rectified[0], features[1], rectified[2])] == [0, 1, 0]
