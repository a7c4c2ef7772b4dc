"""Copies of what a student runs behind one of its maps."""

import copy

import pytest
import torch
from torch import nn

from helpers.batches import small_task
from helpers.branches import SHAPE, branches, taps_of
from helpers.networks import CLASSES, SmallResNet, small_student
from selfdistill.features.extractor import Taps
from selfdistill.features.probe import DryRun
from selfdistill.models import build_student
from selfdistill.modules.branches import copy_behind, reinitialize, remaining_stages

AUXILIARY = {  # parameters of all branches with 400 outputs, as counted on the authors' networks
    "wrn-16-2": 1_928_304,
    "resnet20": 762_992,
    "resnet8x4": 3_557_296,
}


@pytest.mark.parametrize("level", range(3))
def test_what_runs_behind_a_map_gives_the_students_scores(level):
    student = small_student(small_task()).eval()
    taps = taps_of(student)
    rest = copy_behind(DryRun(student, SHAPE), list(taps)[level].name).eval()
    images = torch.randn(3, *SHAPE)
    with torch.no_grad():
        logits, features = taps(images)
        torch.testing.assert_close(rest(features[level]), logits)


@pytest.mark.parametrize("name", AUXILIARY)
@pytest.mark.slow
def test_branches_have_as_many_parameters_as_the_authors(name):
    _, made = branches(build_student(f"cifar:{name}", num_classes=100, image_shape=SHAPE), outputs=400)
    assert sum(parameter.numel() for branch in made for parameter in branch.parameters()) == AUXILIARY[name]


def test_every_branch_scores_and_ends_with_the_deepest_maps_shape():
    student = small_student(small_task())
    taps, made = branches(student)
    _, features = taps(torch.randn(2, *SHAPE))
    for branch, feature in zip(made, features, strict=True):
        scores, deepest = branch.with_map(feature)
        assert scores.shape == (2, 4 * CLASSES) and deepest.shape == features[-1].shape
        assert torch.equal(branch.train()(feature), scores)


def test_every_parameter_of_a_branch_learns_and_gradients_reach_the_map():
    taps, made = branches(small_student(small_task()))
    _, features = taps(torch.randn(2, *SHAPE))
    for branch, feature in zip(made, features, strict=True):
        feature = feature.detach().requires_grad_()
        branch(feature).square().sum().backward()
        assert feature.grad.count_nonzero()
        assert all(parameter.grad.count_nonzero() for parameter in branch.parameters())


def test_a_branch_shares_nothing_with_the_student_nor_with_another():
    student = small_student(small_task())
    before = copy.deepcopy(student.state_dict())
    hooks = sum(len(module._forward_hooks) for module in student.modules())
    taps, made = branches(student)
    places = [p.data_ptr() for module in (student, *made) for p in module.parameters()]
    assert len(set(places)) == len(places)
    assert all(torch.equal(value, before[key]) for key, value in student.state_dict().items())
    assert sum(len(module._forward_hooks) for module in student.modules()) == hooks + len(taps)
    own, copied = student.stage3.conv1.weight, made[0].rest.stage3.conv1.weight
    assert not torch.equal(own, copied)


def test_weights_are_drawn_as_widely_as_the_networks_own():
    net = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.Conv2d(64, 64, 3))
    nn.init.normal_(net[0].weight, std=0.3)
    net[1].running_mean.fill_(2.0)
    old = net[0].weight.clone()
    reinitialize(net)
    assert not torch.equal(net[0].weight, old)
    assert net[0].weight.std().item() == pytest.approx(0.3, rel=0.1)
    assert not net[1].running_mean.any() and not net[2].bias.any()


def test_a_copy_of_a_branch_keeps_its_own_maps():
    taps, made = branches(small_student(small_task()))
    twin = copy.deepcopy(made[0])
    _, features = taps(torch.randn(2, *SHAPE))
    scores, deepest = twin.eval().with_map(features[0])
    again, same = made[0].eval().with_map(features[0])
    assert torch.equal(scores, again) and torch.equal(deepest, same)


class Skipping(SmallResNet):
    """A network whose head sees the first stage too."""

    def forward(self, images):
        first = self.stage1(self.stem(images))
        deep = self.stage3(self.stage2(first))
        return self.fc(deep.mean(dim=(2, 3)) + first.mean())


def test_a_network_with_a_path_around_the_map_is_refused_by_name():
    taps = taps_of(Skipping())
    with pytest.raises(ValueError, match=r"Skipping cannot be run from 'stage2' on, .*take a CNN, or other taps"):
        remaining_stages(taps, 1, CLASSES)


@pytest.mark.parametrize("silent", ["fc", "stage3"])
def test_a_path_around_the_map_shows_though_a_layer_starts_at_zero(silent):
    student = Skipping()
    for parameter in student.get_submodule(silent).parameters():
        nn.init.zeros_(parameter)
    with pytest.raises(ValueError, match="cannot be run from 'stage2' on"):
        remaining_stages(taps_of(student), 1, CLASSES)


def test_branches_of_a_frozen_student_learn():
    branch = remaining_stages(taps_of(small_student(small_task()).requires_grad_(False)), 0, CLASSES)
    assert all(parameter.requires_grad for parameter in branch.parameters())


@pytest.mark.slow
def test_branches_of_a_double_student_are_double():
    student = small_student(small_task()).double()
    taps, made = branches(student)
    assert {parameter.dtype for branch in made for parameter in branch.parameters()} == {torch.float64}


def test_scales_and_other_layers_keep_their_values():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain, self.act = nn.Parameter(torch.ones(4, 1, 1, 1)), nn.PReLU()
            self.norm, self.point = nn.Parameter(torch.full((4, 2, 2), 0.5)), nn.Conv2d(1, 1, 1)

    before = Scaled()
    after = reinitialize(copy.deepcopy(before))
    for name in ("gain", "norm", "act.weight"):
        assert torch.equal(after.get_parameter(name), before.get_parameter(name))
    assert after.point.weight.isfinite().all()


def test_a_zero_classifier_is_not_copied_as_zero():
    student = small_student(small_task())
    nn.init.zeros_(student.fc.weight)
    branch = remaining_stages(taps_of(student), 0, 4 * CLASSES)
    assert branch.rest.fc.weight.std().item() == pytest.approx(16**-0.5, rel=0.3)
    assert branch.rest.fc.out_features == 4 * CLASSES and not branch.rest.fc.bias.any()


def test_a_single_map_is_refused():
    taps = Taps(small_student(small_task()), SHAPE, ["stage3"])
    with pytest.raises(ValueError, match="no stage to run once more"):
        remaining_stages(taps, 0, CLASSES)


def test_what_a_copy_never_runs_does_not_train():
    student = SmallResNet()
    student.unused = nn.Linear(3, 3)
    branch = remaining_stages(taps_of(student), 0, CLASSES)
    trained = {name for name, parameter in branch.named_parameters() if parameter.requires_grad}
    assert trained and not any("unused" in name for name in trained)


@pytest.mark.slow
def test_the_deepest_branch_of_a_wide_network_with_single_blocks_adds_the_raw_map():
    student = build_student("cifar:wrn-10-2", num_classes=CLASSES, image_shape=SHAPE).double()
    taps, made = branches(student)
    branch = made[-1].double().train()
    state = {name.partition(".")[2]: value for name, value in branch.rest.named_parameters() if "layer3" in name}

    def normed(x, name):
        mean, variance = x.mean(dim=(0, 2, 3), keepdim=True), x.var(dim=(0, 2, 3), unbiased=False, keepdim=True)
        scale, shift = (branch.rest.get_parameter(f"{name}.{part}")[:, None, None] for part in ("weight", "bias"))
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    assert not any("shortcut" in name for name in state)  # as wide as its input, so there is nothing to project
    feature = torch.randn(4, 128, 4, 4, dtype=torch.float64)
    x = normed(feature, "layer3.0.bn1").relu()
    x = torch.nn.functional.conv2d(x, state["0.conv1.weight"], padding=1)
    x = torch.nn.functional.conv2d(normed(x, "layer3.0.bn2").relu(), state["0.conv2.weight"], padding=1) + feature
    fc = branch.rest.fc
    expected = normed(x, "bn").relu().mean(dim=(2, 3)) @ fc.weight.T + fc.bias
    torch.testing.assert_close(branch(feature), expected, rtol=1e-9, atol=1e-9)
    assert taps.channels[-1] == 128


@pytest.mark.slow
def test_the_deepest_branch_of_a_vgg_is_its_last_two_blocks_once_more():
    student = build_student("cifar:vgg8", num_classes=CLASSES, image_shape=SHAPE).double()
    taps, made = branches(student)
    assert [tap.name for tap in taps] == ["block1", "block2", "block3", "block5"]
    branch, x = made[-1].double().eval(), torch.randn(4, 512, 2, 2, dtype=torch.float64)
    expected = x
    for name in ("block4", "block5"):
        conv, norm, relu = branch.rest.get_submodule(name)
        expected = relu(norm(torch.nn.functional.conv2d(expected, conv.weight, conv.bias, padding=1)))
    expected = branch.rest.fc(expected.mean(dim=(2, 3)))
    torch.testing.assert_close(branch(x), expected, rtol=1e-9, atol=1e-9)
