"""FRSKD and its relatives against the slow reference, and where their gradients go."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from helpers.batches import small_batch, small_task
from helpers.methods import names_reached, settled_in_double, small_method
from helpers.networks import CLASSES, small_student
from reference import frskd as slow
from selfdistill import Batch, Task, create_method
from selfdistill.methods import find_method
from selfdistill.methods.frskd import connector

STAGES = ["stage1", "stage2", "stage3"]


def made(name="frskd", **settings):
    """The method in float64, its norms and fusion weights away from where they start, and a batch."""
    kind, task = find_method(name), small_task(side=8)
    method = settled_in_double(small_method(kind, task, **settings))
    batch = small_batch(kind, task, rows=5)
    return method, batch._replace(images=batch.images.double())


def weights(module):
    return slow.Weights({name: value.numpy() for name, value in module.state_dict().items()})


def students(method, images):
    """Scores and maps of the student, as float64 arrays."""
    with torch.no_grad():
        logits, features = method.taps(images)
    return logits.numpy(), [each.numpy() for each in features[-len(method.self_teacher.channels) :]]


def self_teachers(method, features):
    return slow.self_teacher(
        features,
        weights(method.self_teacher),
        depth=method.depth,
        fixed_width=method.self_teacher_net == "BiFPN",
        repeat=method.repeat,
        preactivation=method.feature_loss == "overhaul",
    )


def distance(method):
    """The reference's feature loss for the method's settings."""
    if method.feature_loss == "attention":
        return slow.attention_loss
    connectors = weights(method.connectors)
    if method.feature_loss == "hint":
        return lambda features, refined: slow.hint_loss(features, refined, connectors)
    own = method.self_teacher.passes[-1]
    norms = [
        own.node_down[0][-1] if len(own.node_down) else own.lateral_down[0][1],
        *(node[-1] for node in own.node_up),
    ]
    pairs = [list(zip(norm.weight.tolist(), norm.bias.tolist(), strict=True)) for norm in norms]
    if method.margin == "initial":
        pairs = [[(1.0, 0.0)] * len(each) for each in pairs]
    margins = [[slow.margin(scale, shift) for scale, shift in each] for each in pairs]
    return lambda features, refined: slow.overhaul_loss(features, refined, connectors, margins)


def expected_terms(method, batch):
    logits, features = students(method, batch.images)
    teacher_logits, refined = self_teachers(method, features)
    return slow.objective(
        logits,
        features,
        teacher_logits,
        refined,
        batch.target.tolist(),
        alpha=method.alpha,
        beta=method.beta,
        temperature=method.temperature,
        feature_distance=distance(method),
    )


def agree(losses, expected):
    assert losses.keys() == expected.keys()
    for term, value in losses.items():
        np.testing.assert_allclose(value.item(), expected[term], rtol=1e-9, err_msg=term)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"alpha": 3.0, "beta": 200.0, "temperature": 3.0},
        {"width": 1, "depth": 1},
        {"self_teacher_net": "BiFPN", "num_channels": 6, "repeat": 2},
        {"levels": 2},
        {"levels": 1},
        {"feature_loss": "hint", "beta": 1.5},
        {"feature_loss": "hint", "self_teacher_net": "BiFPN", "num_channels": 6},
        {"feature_loss": "overhaul", "beta": 1e-3},
        {"feature_loss": "overhaul", "beta": 1e-3, "margin": "current"},
        {"feature_loss": "overhaul", "beta": 1e-3, "margin": "current", "levels": 1},
        {"feature_loss": "overhaul", "margin": "current", "self_teacher_net": "BiFPN", "num_channels": 6, "repeat": 2},
    ],
    ids=str,
)
def test_frskd_agrees_with_the_reference(settings):
    method, batch = made(**settings)
    agree(method(batch).losses, expected_terms(method, batch))


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"beta": 0.0}, {"alpha": 0.0, "beta": 0.0}], ids=str)
def test_a_term_that_weighs_nothing_is_not_there(settings):
    method, batch = made(**settings)
    gone = {{"alpha": "kd", "beta": "feature"}[name] for name in settings}
    expected = expected_terms(method, batch)
    agree(method(batch).losses, {term: value for term, value in expected.items() if term not in gone})


@pytest.mark.parametrize("progress", [0.0, 0.2, 0.5, 0.79, 0.9])
def test_ramp_weighs_both_imitations_and_nothing_else(progress):
    method, batch = made(warmup=0.2, ramp=0.6)
    weight = slow.growing_weight(progress, 0.2, 0.6)
    expected = expected_terms(method, batch)
    expected |= {term: weight * expected[term] for term in ("kd", "feature")}
    agree(method(batch, torch.tensor(progress, dtype=torch.float64)).losses, expected)


def test_margin_follows_the_self_teachers_norms_only_where_it_is_current():
    for margin, moves in (("initial", False), ("current", True)):
        method, _ = made(feature_loss="overhaul", margin=margin)
        before = method.margins()
        with torch.no_grad():
            for norm in method.self_teacher.norms():
                norm.bias += 0.5
        assert all(torch.equal(one, other) != moves for one, other in zip(before, method.margins(), strict=True))
        assert not any(each.requires_grad for each in method.margins())
    assert all(each.shape == (channels,) for each, channels in zip(before, method.self_teacher.channels, strict=True))


def test_mixed_labels_mix_both_cross_entropies_and_leave_the_imitations_alone():
    method, batch = made()
    first, second = F.one_hot(batch.target, CLASSES).double(), F.one_hot(batch.target.flip(0), CLASSES).double()
    mixed = method(batch._replace(soft_target=0.3 * first + 0.7 * second)).losses
    ends = [method(batch._replace(target=target)).losses for target in (batch.target, batch.target.flip(0))]
    for term in ("task", "teacher"):
        torch.testing.assert_close(mixed[term], 0.3 * ends[0][term] + 0.7 * ends[1][term])
    for term in ("kd", "feature"):
        torch.testing.assert_close(mixed[term], ends[0][term])


def reached(method, term):
    """The kinds of parameters to which a loss term sends a gradient."""
    return {kind(name) for name in names_reached(method, term)}


def kind(name):
    """Classifiers and fusion weights apart, the submodule of the method that a parameter belongs to."""
    owner, *inner = name.split(".")
    if "fuse_" in name:
        return "fusion"
    return f"{owner}.fc" if "fc" in inner else owner


PLAIN = {
    "task": {"student", "student.fc"},
    "teacher": {"student", "self_teacher", "fusion", "self_teacher.fc"},
    "kd": {"student", "student.fc"},
    "feature": {"student"},
}
JOINT = PLAIN | {
    "joint": {"student", "joint"},
    "teacher_joint": {"student", "self_teacher", "fusion", "teacher_joint"},
    "votes": {"student", "student.fc"},
    "teacher_votes": {"student", "self_teacher", "fusion", "self_teacher.fc"},
    "kd": {"student", "student.fc", "joint"},
}
BY_SELF_TEACHER = {"teacher", "teacher_joint", "teacher_votes"}


@pytest.mark.parametrize("stop_gradient", [False, True])
@pytest.mark.parametrize(
    ("name", "settings", "table"),
    [
        ("frskd", {}, PLAIN),
        ("frskd", {"self_teacher_net": "BiFPN", "num_channels": 8}, PLAIN),
        ("frskd", {"feature_loss": "hint"}, PLAIN | {"feature": {"student", "connectors"}}),
        ("frskd", {"feature_loss": "overhaul", "margin": "current"}, PLAIN | {"feature": {"student", "connectors"}}),
        ("frskd_sla", {}, JOINT),
        ("frskd_sla", {"reuse_upright": False}, JOINT),
    ],
)
def test_each_term_teaches_whom_it_should(name, settings, table, stop_gradient):
    method, batch = made(name, stop_gradient=stop_gradient, **settings)
    step = method(batch)
    assert step.losses.keys() == table.keys()
    for term, kinds in table.items():
        kept = {"student"} if stop_gradient and term in BY_SELF_TEACHER else set()
        assert reached(method, step.losses[term]) == kinds - kept, term


def test_stop_gradient_changes_no_value():
    open_, closed = made()[0](made()[1]), made(stop_gradient=True)[0](made()[1])
    assert {term: value.item() for term, value in open_.losses.items()} == {
        term: value.item() for term, value in closed.losses.items()
    }


def test_deep_supervision_is_frskd_without_its_imitations():
    steps = []
    for name, settings in (("deep_supervision", {}), ("frskd", {"alpha": 0.0, "beta": 0.0})):
        method, batch = made(name, width=1, depth=3, **settings)
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
    method, _ = made(levels=2)
    assert method.self_teacher.channels == [24, 32]
    with pytest.raises(ValueError, match="4 levels were asked for and the student has 3"):
        made(levels=4)


def test_named_taps_are_the_maps_that_are_used():
    task = small_task()
    method = create_method("frskd", small_student(task), task, taps=STAGES[::2], width=1)
    assert [tap.name for tap in method.taps] == STAGES[::2]
    assert method.self_teacher.channels == [8, 16]


@pytest.mark.parametrize("name", ["baseline", "label_smoothing"])
def test_taps_that_a_method_does_not_read_are_refused(name):
    with pytest.raises(ValueError, match=r"reads no feature maps, so taps=\['stage1'\] would have no effect"):
        create_method(name, small_student(small_task()), small_task(), taps=["stage1"])


@pytest.mark.parametrize(
    ("settings", "idle"),
    [
        ({"num_channels": 64}, "num_channels"),
        ({"repeat": 2}, "repeat"),
        ({"self_teacher_net": "BiFPN", "width": 3}, "width"),
        ({"beta": 0.0, "feature_loss": "hint"}, "feature_loss"),
        ({"beta": 0.0, "feature_loss": "overhaul", "margin": "current"}, "feature_loss"),
        ({"margin": "current"}, "margin"),
        ({"feature_loss": "hint", "margin": "current"}, "margin"),
        ({"alpha": 0.0, "temperature": 2.0}, "temperature"),
        ({"alpha": 0.0, "beta": 0.0, "ramp": 0.5}, "ramp"),
        ({"alpha": 0.0, "beta": 0.0, "warmup": 0.5}, "warmup"),
        ({"levels": 1, "depth": 3}, "depth"),
        ({"levels": 1, "self_teacher_net": "BiFPN", "repeat": 2}, "repeat"),
    ],
    ids=str,
)
def test_settings_without_effect_are_refused(settings, idle):
    with pytest.raises(ValueError, match=f"FRSKD: {idle}=.* has no effect"):
        made(**settings)


def test_sla_refuses_a_temperature_only_where_no_term_has_one():
    made("frskd_sla", alpha=0.0, temperature=2.0)  # the votes are softened too
    with pytest.raises(ValueError, match="temperature=.* has no effect"):
        made("frskd_sla", alpha=0.0, gamma=0.0, temperature=2.0)


def test_warmup_and_ramp_fit_into_training():
    made(warmup=0.4, ramp=0.6)
    with pytest.raises(ValueError, match="warmup=0.5 and ramp=0.6 are shares of training"):
        made(warmup=0.5, ramp=0.6)


def test_connectors_start_with_the_authors_spread():
    torch.manual_seed(0)
    rectified, raw = connector(64, 128, True), connector(64, 128, False)
    assert rectified[0].weight.std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.05)
    features = torch.randn(2, 64, 3, 3)
    assert rectified(features).min() == 0 and raw(features).min() < 0


@pytest.mark.parametrize("feature_loss", ["attention", "hint", "overhaul"])
@pytest.mark.parametrize("reuse_upright", [False, True])
def test_sla_agrees_with_the_reference(reuse_upright, feature_loss):
    method, batch = made("frskd_sla", reuse_upright=reuse_upright, feature_loss=feature_loss, gamma=0.7)
    target = batch.target.tolist()
    rotated = torch.from_numpy(slow.turned(batch.images.numpy()))
    turned_logits, turned = students(method, rotated)
    turned_teacher_logits, turned_refined = self_teachers(method, turned)
    if reuse_upright:
        logits, teacher_logits, features, refined = (
            turned_logits[::4],
            turned_teacher_logits[::4],
            turned,
            turned_refined,
        )
    else:
        logits, features = students(method, batch.images)
        teacher_logits, refined = self_teachers(method, features)
        features = [np.concatenate(pair) for pair in zip(features, turned, strict=True)]
        refined = [np.concatenate(pair) for pair in zip(refined, turned_refined, strict=True)]
    joint, teacher_joint = (
        slow.rectified(deepest).mean(axis=(2, 3)) @ weights(head)["weight"].T + weights(head)["bias"]
        for deepest, head in ((turned[-1], method.joint), (turned_refined[-1], method.teacher_joint))
    )
    scale = {"alpha": method.alpha, "temperature": method.temperature}
    plain = slow.objective(
        logits, features, teacher_logits, refined, target, beta=method.beta, feature_distance=distance(method), **scale
    )
    expected = plain | slow.sla_terms(logits, joint, teacher_logits, teacher_joint, target, gamma=0.7, **scale)
    step = method(batch)
    agree(step.losses, expected)
    np.testing.assert_allclose(step.logits.detach().numpy(), logits, rtol=1e-9)


@pytest.mark.parametrize(("reuse_upright", "updates"), [(False, 2), (True, 1)])
def test_sla_moves_running_statistics_once_per_forward(reuse_upright, updates):
    method, batch = made("frskd_sla", reuse_upright=reuse_upright)
    method(batch)
    for net in (method.student, method.self_teacher):
        counts = [value.item() for name, value in net.state_dict().items() if name.endswith("num_batches_tracked")]
        assert counts and set(counts) == {updates}


def test_frskd_moves_running_statistics_once():
    method, batch = made(feature_loss="hint")
    method(batch)
    counts = [value.item() for name, value in method.state_dict().items() if name.endswith("num_batches_tracked")]
    assert set(counts) == {1}


def test_sla_without_gamma_has_no_votes():
    method, batch = made("frskd_sla", gamma=0.0)
    assert method(batch).losses.keys() == {"task", "teacher", "joint", "teacher_joint", "kd", "feature"}


def test_sla_refuses_oblong_images():
    with pytest.raises(ValueError, match="rotations need square images, and these are 16 x 12"):
        create_method("frskd_sla", small_student(small_task()), Task("classification", CLASSES, (3, 16, 12)))


@pytest.mark.parametrize("size", [(17, 17), (11, 16), (9, 7)])
def test_frskd_takes_images_of_any_size(size):
    task = Task("classification", CLASSES, (3, *size))
    method = create_method("frskd", small_student(task), task)
    step = method(Batch(torch.randn(4, 3, *size), torch.arange(4)))
    assert step.loss.isfinite()


@pytest.mark.parametrize("name", ["frskd", "frskd_sla"])
def test_first_step_of_half_precision_scores_equals_that_of_single(name):
    """Every loss is computed in float32, so autocast moves the terms only as far as it moves the networks."""
    method, batch = made(name)
    method, batch = method.float(), batch._replace(images=batch.images.float())
    plain = method(batch).losses
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = method(batch).losses
    for term, value in plain.items():
        assert half[term].dtype == torch.float32
        torch.testing.assert_close(half[term], value, rtol=0.2, atol=0.05)
