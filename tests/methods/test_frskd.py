"""FRSKD and its relatives: margins, levels, connectors."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.batches import small_task
from helpers.methods import method_and_batch, names_reached
from helpers.networks import CLASSES, small_student
from selfdistill import Batch, Task, create_method, losses
from selfdistill.methods import find_method
from selfdistill.methods.frskd import connector
from selfdistill.models import build_student


def test_margin_follows_the_self_teachers_norms_only_where_it_is_current():
    for margin, moves in (("initial", False), ("current", True)):
        method, _ = method_and_batch("frskd", feature_loss="overhaul", margin=margin)
        before = method.margins()
        with torch.no_grad():
            for norm in method.self_teacher.norms():
                norm.bias += 0.5
        assert all(torch.equal(one, other) != moves for one, other in zip(before, method.margins(), strict=True))
        assert not any(each.requires_grad for each in method.margins())
    assert all(each.shape == (channels,) for each, channels in zip(before, method.self_teacher.channels, strict=True))


def test_deep_supervision_is_frskd_without_its_imitations():
    steps = []
    for name, settings in (("deep_supervision", {}), ("frskd", {"alpha": 0.0, "beta": 0.0})):
        method, batch = method_and_batch(name, width=1, depth=3, **settings)
        step = method(batch, torch.tensor(0.4))
        step.loss.backward()
        gradients = {each: parameter.grad for each, parameter in method.named_parameters()}
        steps.append((step.losses, gradients))
    for ours, theirs in zip(*steps, strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[key]) for key, value in ours.items())
    assert steps[0][0].keys() == {"task", "teacher"}


def test_deep_supervision_has_none_of_the_settings_of_what_it_leaves_out():
    kept = {"self_teacher_net", "depth", "width", "num_channels", "repeat", "levels"}
    assert find_method("deep_supervision").hyperparameters().keys() == kept
    assert find_method("frskd").hyperparameters().keys() > kept


def test_levels_are_the_deepest_maps():
    method, _ = method_and_batch("frskd", levels=2)
    assert method.self_teacher.channels == [24, 32]


def test_a_single_level_has_no_fusion_that_could_be_cheaper_or_set():
    for levels, cheaper in ((3, ["levels=2", "levels=1"]), (2, ["levels=1"]), (1, ["width=1"])):
        assert method_and_batch("frskd", levels=levels)[0].list_cheaper_settings() == cheaper
    with pytest.raises(ValueError, match="depth=3 has no effect with a single level"):
        method_and_batch("frskd", levels=1, depth=3)


def test_named_taps_are_the_maps_that_are_used():
    task = small_task()
    method = create_method("frskd", small_student(task), task, taps=["stage1", "stage3"], width=1)
    assert [tap.name for tap in method.taps] == ["stage1", "stage3"]
    assert method.self_teacher.channels == [8, 16]


def test_connectors_start_with_the_authors_spread():
    torch.manual_seed(0)
    rectified, raw = connector(64, 128, True), connector(64, 128, False)
    assert rectified[0].weight.std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.05)
    features = torch.randn(2, 64, 3, 3)
    assert rectified(features).min() == 0 and raw(features).min() < 0


@pytest.mark.parametrize("size", [(17, 17), (11, 16), (9, 7)])
def test_frskd_takes_images_of_any_size(size):
    task = Task("classification", CLASSES, (3, *size))
    method = create_method("frskd", small_student(task), task)
    step = method(Batch(torch.randn(4, 3, *size), torch.arange(4)))
    assert step.loss.isfinite()


def test_overhaul_hands_the_maps_before_their_relu_to_the_connectors():
    """The smallest case: one channel and the positions -2, 0 and 1 before the ReLU."""
    net = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.append(nn.Linear(1, 2)).double()
    nn.init.ones_(net[0].weight)
    images = torch.tensor([-2.0, 0.0, 1.0], dtype=torch.float64).repeat(2, 1).view(2, 1, 1, 3)
    settings = {"feature_loss": "overhaul", "beta": 1e-3, "width": 1}
    method = create_method("frskd", net, Task("classification", 2, (1, 1, 3)), taps=["1"], **settings).train()
    nn.init.ones_(method.connectors[0][0].weight)
    _, features, compared, *_ = method.both(images)
    assert features[0][0].flatten().tolist() == [0, 0, 1]
    connected = method.connectors[0](compared[0])[0].flatten().tolist()
    assert connected == pytest.approx([-1.336, 0.267, 1.069], abs=5e-4)


def test_overhaul_has_the_gradients_of_a_plain_computation_through_a_real_student():
    task = Task("classification", CLASSES, (3, 8, 8))
    student = build_student("cifar:resnet8", num_classes=CLASSES, image_shape=(3, 8, 8)).double()
    method = create_method("frskd", student, task, feature_loss="overhaul", beta=1.0, width=1).train()
    batch = Batch(torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.arange(4))
    parameters = [*student.parameters(), *method.connectors.parameters()]
    term = method(batch).losses["feature"]
    found = torch.autograd.grad(term, parameters, allow_unused=True)

    x, before = F.relu(student.bn1(student.conv1(batch.images))), []
    for (block,) in (student.layer1, student.layer2, student.layer3):
        inner = F.relu(block.bn1(block.conv1(x)))
        before.append(block.bn2(block.conv2(inner)) + block.shortcut(x))
        x = F.relu(before[-1])
    with torch.no_grad():
        _, refined = method.self_teacher([F.relu(each) for each in before])
    bound = -((2 / torch.pi) ** 0.5)  # of a batch norm that was not trained
    expected = 0.0
    for level, (feature, aim, (conv, norm)) in enumerate(zip(before, refined, method.connectors, strict=True)):
        own = F.conv2d(feature, conv.weight)
        own = (own - own.mean((0, 2, 3), keepdim=True)) / (own.var((0, 2, 3), False, True) + 1e-5).sqrt()
        own = own * norm.weight[:, None, None] + norm.bias[:, None, None]
        goal = aim.clamp(min=bound)
        counted = torch.where((own > goal) | (goal > 0), (own - goal) ** 2, 0.0)
        expected = expected + counted.sum() / 4 / 2 ** (2 - level)
    torch.testing.assert_close(term, expected, rtol=1e-9, atol=0)
    wanted = torch.autograd.grad(expected, parameters, allow_unused=True)
    assert sum(gradient is not None for gradient in wanted) > 20
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["frskd", "frskd_sla"])
@pytest.mark.parametrize("feature_loss", ["attention", "hint", "overhaul"])
def test_the_distances_of_the_levels_are_the_parts_of_the_feature_loss(name, feature_loss):
    method, batch = method_and_batch(name, feature_loss=feature_loss, beta=3.0, levels=2, warmup=0.0, ramp=0.5)
    step = method(batch, torch.tensor(0.2))
    assert [*step.level_distances] == [tap.name for tap in method.taps][-2:]
    assert not any(distance.requires_grad for distance in step.level_distances.values())
    ramp = losses.ramp_up(torch.tensor(0.2), 0.0, 0.5)
    torch.testing.assert_close(3.0 * ramp * sum(step.level_distances.values()), step.losses["feature"].detach())


def test_without_a_feature_loss_no_distance_is_computed():
    method, batch = method_and_batch("frskd", beta=0.0)
    assert method(batch).level_distances is None


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("frskd", {}),
        ("frskd", {"self_teacher_net": "BiFPN", "levels": 2}),
        ("frskd", {"feature_loss": "overhaul"}),
        ("frskd_sla", {}),
        ("deep_supervision", {}),
    ],
)
def test_the_maps_to_look_at_are_rectified_and_of_one_size_at_each_level(name, settings):
    method, batch = method_and_batch(name, **settings)
    features, refined = method.eval().compare_maps(batch.images)
    assert len(features) == len(refined) == settings.get("levels", 3)
    assert all(a.shape[2:] == b.shape[2:] and b.min() >= 0 for a, b in zip(features, refined, strict=True))


def test_a_method_without_a_self_teacher_has_none_to_look_at():
    method, batch = method_and_batch("baseline")
    assert method.compare_maps(batch.images) is None


def test_the_self_teachers_loss_reaches_the_student_between_two_shares_of_training():
    method, batch = method_and_batch("frskd", start=0.1, stop_gradient_before=0.4, stop_gradient_after=0.8)
    for progress, is_reached in [(0.0, None), (0.2, False), (0.4, True), (0.7, True), (0.8, False), (1.0, False)]:
        terms = method(batch, progress).losses
        assert ("kd" in terms) == ("teacher" in terms) == (is_reached is not None)
        if is_reached is not None:
            reached = {name.partition(".")[0] for name in names_reached(method, terms["teacher"])}
            assert reached == ({"student", "self_teacher"} if is_reached else {"self_teacher"})


def test_a_self_teacher_that_settles_sends_no_gradient_to_the_student():
    method, batch = method_and_batch("frskd", start=0.2, settle=0.3)
    reached = {
        progress: {name.partition(".")[0] for name in names_reached(method, method(batch, progress).losses["teacher"])}
        for progress in (0.3, 0.6)
    }
    assert reached == {0.3: {"self_teacher"}, 0.6: {"student", "self_teacher"}}


def test_an_average_of_the_self_teacher_teaches():
    method, batch = method_and_batch("frskd", teacher_average=0.9, start=0.2)
    optimizer = torch.optim.SGD([each for each in method.parameters() if each.requires_grad], 0.1)
    seen = []
    for progress in (0.0, 0.3, 0.6):
        seen.append(method.self_teacher.fc.weight.clone())
        optimizer.zero_grad()
        method(batch, progress).loss.backward()
        optimizer.step()
        method.after_step()
    mean = torch.stack([seen[1], seen[2], method.self_teacher.fc.weight]).mean(dim=0)  # of those since it woke
    torch.testing.assert_close(method.average.net.fc.weight, mean.detach())
    both = method.both(batch.images)
    soft_labels, refined = method.average.net([each.detach() for each in both.features])
    assert torch.equal(both.soft_labels, soft_labels) and not torch.equal(both.soft_labels, both.teacher_logits)
    assert all(torch.equal(one, other) for one, other in zip(both.refined, refined, strict=True))
    terms = method(batch, 0.9).losses
    assert {name.partition(".")[0] for name in names_reached(method, terms["kd"] + terms["feature"])} == {"student"}
    torch.testing.assert_close(terms["kd"], 2.0 * losses.kd(both.logits, soft_labels, 4.0))


def test_the_last_layer_of_a_sleeping_self_teacher_follows_the_students_classifier():
    method, batch = method_and_batch("frskd", start_from_classifier=True, width=1, start=0.5)
    optimizer = torch.optim.SGD(method.parameters(), 0.1)
    for progress, follows in [(0.0, True), (0.2, True), (0.6, False)]:
        optimizer.zero_grad()
        method(batch, progress).loss.backward()
        optimizer.step()
        method.after_step()
        assert torch.equal(method.self_teacher.fc.weight, method.student.fc.weight) == follows


@pytest.mark.parametrize(("kind", "width"), [("classification", 2), ("segmentation", 1)])
def test_a_last_layer_that_cannot_be_the_students_classifier_is_refused(kind, width):
    task = small_task(kind)
    with pytest.raises(ValueError, match="no linear layer on its deepest map that fits the self-teacher's last layer"):
        create_method("frskd", small_student(task), task, total_steps=9, start_from_classifier=True, width=width)


def test_only_a_self_teacher_that_changes_has_phases():
    for settings in ({}, {"stop_gradient": True}):
        assert not method_and_batch("frskd", **settings)[0].has_phases
    for name in ("start", "settle", "stop_gradient_before", "stop_gradient_after"):
        assert method_and_batch("frskd", **{name: 0.5})[0].has_phases


def test_imitation_begins_after_the_self_teacher_has_settled_or_with_the_warmup():
    for settings, begin in [
        ({"start": 0.5}, 0.5),
        ({"start": 0.5, "settle": 0.1}, 0.6),
        ({"start": 0.25, "warmup": 0.5}, 0.5),
    ]:
        for task in map(small_task, ("classification", "segmentation")):  # the latter has another default of warmup
            method = create_method("frskd", small_student(task), task, total_steps=100, **settings)
            assert method.timetable.imitation == begin and method.ramp == 1 - begin


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"start": 0.6, "settle": 0.4}, "start=0.6 and settle=0.4 leave the self-teacher no share of training"),
        ({"start": 0.5, "warmup": 0.4}, "warmup=0.4 has no effect with start=0.5 and settle=0.0"),
        ({"start": 0.5, "ramp": 0.6}, r"start \+ settle=0.5 and ramp=0.6 are shares of training, and add up to over 1"),
        ({"stop_gradient_after": 0.5, "start": 0.5}, "never reaches the student; stop_gradient=true says so"),
        ({"stop_gradient_before": 0.5, "start": 0.5}, "stop_gradient_before=0.5 has no effect with start=0.5"),
        (
            {"stop_gradient_after": 0.5, "stop_gradient": True},
            "stop_gradient_after=0.5 has no effect with stop_gradient",
        ),
    ],
)
def test_shares_that_contradict_each_other_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        method_and_batch("frskd", **settings)
