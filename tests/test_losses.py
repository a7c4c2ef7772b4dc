"""Properties that the loss functions keep, and their values against the slow reference."""

import inspect
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reference import frskd as slow
from selfdistill import Batch, Task, create_method, losses

DOUBLE = torch.float64
HALVES = [torch.float16, torch.bfloat16]
IMITATIONS = {  # every loss with a teacher: its arguments for a draw of random numbers
    "kd": lambda draw: {"logits": draw(4, 6), "teacher_logits": draw(4, 6)},
    "binary_kd": lambda draw: {"logits": draw(4, 6), "teacher_logits": draw(4, 6)},
    "kl": lambda draw: {"logits": draw(4, 6), "teacher_probabilities": draw(4, 6).softmax(1)},
    "attention_transfer": lambda draw: {"feature": draw(4, 3, 5, 6), "teacher_feature": draw(4, 7, 5, 6)},
    "hint": lambda draw: {"feature": draw(4, 3, 5, 6), "teacher_feature": draw(4, 3, 5, 6)},
    "overhaul": lambda draw: {
        "feature": draw(4, 3, 5, 6),
        "teacher_feature": draw(4, 3, 5, 6),
        "margin": -abs(draw(3)),
    },
}
every_imitation = pytest.mark.parametrize("name", IMITATIONS)


def arguments(name, dtype=DOUBLE):
    return IMITATIONS[name](lambda *shape: torch.randn(*shape, dtype=dtype))


def close(ours, reference):
    torch.testing.assert_close(ours, torch.as_tensor(reference, dtype=DOUBLE), rtol=1e-9, atol=1e-12)


def taught(name):
    """The arguments with the teacher in the place of the student, where their shapes allow it."""
    given = arguments(name)
    own = next(argument for argument in given if not argument.startswith("teacher_") and argument != "margin")
    return {**given, own: given[f"teacher_{own}"]}


def test_every_loss_with_a_teacher_is_tested_here():
    functions = inspect.getmembers(losses, inspect.isfunction)
    with_teacher = {n for n, f in functions if any(a.startswith("teacher_") for a in inspect.signature(f).parameters)}
    assert with_teacher == set(IMITATIONS)


@every_imitation
def test_gradient_reaches_the_student_only(name):
    given = {argument: value.requires_grad_() for argument, value in arguments(name).items()}
    getattr(losses, name)(**given).backward()
    for argument, value in given.items():
        if argument.startswith("teacher_") or argument == "margin":
            assert value.grad is None
        else:
            assert value.grad.count_nonzero() > 0


@every_imitation
def test_gradient_is_the_slope_of_the_value(name):
    given = arguments(name)
    own, *others = given
    fixed = {argument: given[argument] for argument in others}
    assert torch.autograd.gradcheck(lambda x: getattr(losses, name)(x, **fixed), given[own].requires_grad_())


@pytest.mark.parametrize("name", ["kd", "binary_kd", "attention_transfer", "hint"])
def test_nothing_is_to_be_learned_from_oneself(name):
    given = {argument: value.requires_grad_() for argument, value in taught(name).items()}
    loss = getattr(losses, name)(**given)
    assert loss.item() == 0
    loss.backward()
    assert next(iter(given.values())).grad.abs().max() < 1e-12


@every_imitation
def test_value_is_never_negative(name):
    for _ in range(20):
        assert getattr(losses, name)(**arguments(name)) > 0


@every_imitation
def test_order_of_the_rows_does_not_matter(name):
    given = arguments(name)
    order = torch.randperm(4)
    shuffled = {argument: value if argument == "margin" else value[order] for argument, value in given.items()}
    torch.testing.assert_close(getattr(losses, name)(**shuffled), getattr(losses, name)(**given))


@every_imitation
def test_twice_the_same_rows_give_the_same_value(name):
    given = arguments(name)
    double = {
        argument: value if argument == "margin" else value.repeat_interleave(2, 0) for argument, value in given.items()
    }
    torch.testing.assert_close(getattr(losses, name)(**double), getattr(losses, name)(**given))


@pytest.mark.parametrize("dtype", HALVES)
@every_imitation
def test_half_precision_is_computed_in_float32(name, dtype):
    given = {argument: 300 * value.abs().to(dtype) for argument, value in arguments(name).items()}
    loss = getattr(losses, name)(**given)
    assert loss.isfinite() and loss.dtype == torch.float32
    assert torch.equal(loss, getattr(losses, name)(**{argument: value.float() for argument, value in given.items()}))


@every_imitation
def test_autocast_does_not_reach_inside(name):
    given = arguments(name, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = getattr(losses, name)(**given)
    assert torch.equal(inside, getattr(losses, name)(**given))


def test_decorated_functions_run_wide_and_without_autocast():
    @losses.in_float32
    def inside(first, number, *, second):
        return torch.is_autocast_enabled("cpu"), first.dtype, second.dtype, number

    half, double = torch.ones(1).bfloat16(), torch.ones(1).double()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert inside(half, 3, second=double) == (False, torch.float32, torch.float64, 3)
        assert torch.is_autocast_enabled("cpu")


@every_imitation
def test_half_precision_student_gets_a_finite_gradient_of_its_own_type(name):
    given = {argument: 300 * value.abs().half() for argument, value in arguments(name).items()}
    student = next(iter(given.values())).requires_grad_()
    getattr(losses, name)(**given).backward()
    assert student.grad.dtype == torch.float16 and student.grad.isfinite().all()


@pytest.mark.parametrize("temperature", [1.0, 3.0, 4.0])
def test_kd_agrees_with_the_reference(temperature):
    given = arguments("kd")
    reference = slow.soft_label_loss(given["logits"].tolist(), given["teacher_logits"].tolist(), temperature)
    close(losses.kd(**given, temperature=temperature), reference)


def test_kd_takes_positions_for_further_rows():
    logits, teacher = torch.randn(2, 5, 3, 4, dtype=DOUBLE), torch.randn(2, 5, 3, 4, dtype=DOUBLE)
    flat = [each.movedim(1, -1).reshape(-1, 5) for each in (logits, teacher)]
    torch.testing.assert_close(losses.kd(logits, teacher), losses.kd(*flat))


def test_kd_points_from_the_teacher_to_the_student():
    sure, unsure = torch.tensor([[8.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    surprise = losses.kd(unsure, sure, temperature=1.0)  # at most log 2: the student rules nothing out
    torch.testing.assert_close(surprise.item(), math.log(2), atol=0.01, rtol=0)
    assert losses.kd(sure, unsure, temperature=1.0) > 3


def test_kd_gradient_keeps_its_size_over_temperatures():
    sizes = []
    for temperature in (10.0, 100.0):
        logits, teacher = torch.randn(3, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)), torch.zeros(3, 4)
        losses.kd(logits.requires_grad_(), teacher.double(), temperature).backward()
        sizes.append(logits.grad.norm())
    torch.testing.assert_close(*sizes, rtol=0.05, atol=0)


def test_kd_of_huge_scores_is_finite():
    logits = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    loss = losses.kd(logits, logits.detach().flip(1))
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


@pytest.mark.parametrize("name", ["kd", "hint", "attention_transfer"])
def test_shapes_that_would_broadcast_are_refused(name):
    given = arguments(name)
    first = next(iter(given))
    with pytest.raises(TypeError):
        getattr(losses, name)(**{**given, first: given[first][:1]})


def test_attention_agrees_with_the_reference():
    feature = torch.randn(3, 4, 5, 6, dtype=DOUBLE)
    for ours, row in zip(losses.attention(feature), feature.numpy(), strict=True):
        close(ours, slow.attention_map(row))


def test_attention_has_unit_length_whatever_the_scale():
    feature = torch.randn(3, 4, 5, 6)
    torch.testing.assert_close(losses.attention(feature).norm(dim=1), torch.ones(3))
    torch.testing.assert_close(losses.attention(1e-3 * feature), losses.attention(100 * feature))


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
def test_attention_of_a_dead_map_is_zero_and_has_a_gradient(dtype):
    feature = torch.zeros(2, 3, 4, 4, dtype=dtype, requires_grad=True)
    assert losses.attention(feature).eq(0).all()
    losses.attention_transfer(feature, torch.rand(2, 3, 4, 4, dtype=dtype)).backward()
    assert feature.grad.isfinite().all()


def test_attention_transfer_agrees_with_the_reference():
    given = arguments("attention_transfer")
    reference = slow.attention_loss([given["feature"].numpy()], [given["teacher_feature"].numpy()])
    close(losses.attention_transfer(**given), reference)


def test_hint_is_the_mean_square():
    close(losses.hint(torch.full((2, 1, 1, 2), 3.0, dtype=DOUBLE), torch.ones(2, 1, 1, 2, dtype=DOUBLE)), 4.0)


@pytest.mark.parametrize(
    ("own", "teacher", "expected"),
    [
        (2.0, 1.0, 1.0),  # a positive target is met from above
        (-1.0, 1.0, 4.0),  # and from below
        (0.5, -2.0, 2.25),  # a negative one is raised to the margin, -1,
        (-0.5, -2.0, 0.25),
        (-3.0, -2.0, 0.0),  # below which the student may stay
        (-0.8, -0.5, 0.0),  # between margin and zero the target stays itself
        (-0.2, -0.5, 0.09),
    ],
)
def test_overhaul_of_one_position(own, teacher, expected):
    as_map = [torch.full((1, 1, 1, 1), value, dtype=DOUBLE) for value in (own, teacher)]
    close(losses.overhaul(*as_map, torch.tensor([-1.0], dtype=DOUBLE)), expected)


def test_overhaul_is_a_sum_over_everything_but_rows():
    given = arguments("overhaul")
    row = {"feature": given["feature"][:1], "teacher_feature": given["teacher_feature"][:1], "margin": given["margin"]}
    wide = {argument: torch.cat([v, v], dim=0 if argument == "margin" else 1) for argument, v in row.items()}
    torch.testing.assert_close(losses.overhaul(**wide), 2 * losses.overhaul(**row))


@pytest.mark.parametrize(
    ("scale", "shift"), [(1.0, 0.0), (0.5, 0.3), (2.0, -1.0), (-1.5, 0.2), (0.1, 0.3), (0.1, 0.31)]
)
def test_negative_margin_agrees_with_the_reference(scale, shift):
    ours = losses.negative_margin(torch.tensor([scale], dtype=DOUBLE), torch.tensor([shift], dtype=DOUBLE))
    close(ours, [slow.margin(scale, shift)])


def test_negative_margin_is_the_mean_of_the_negative_draws():
    draws = np.random.default_rng(0).normal(0.3, 0.5, 400_000)
    ours = losses.negative_margin(torch.tensor([0.5]), torch.tensor([0.3])).item()
    assert abs(ours - draws[draws < 0].mean()) < 0.005


def test_negative_margin_of_a_dead_norm_is_finite():
    scales, shifts = torch.zeros(3), torch.tensor([-0.5, 0.0, 0.5])
    assert losses.negative_margin(scales, shifts).isfinite().all()


@pytest.mark.parametrize(
    ("progress", "warmup", "ramp", "expected"),
    [
        (0.0, 0.0, 0.0, 1.0),
        (0.9, 0.0, 0.0, 1.0),
        (0.0, 0.0, 1.0, math.exp(-5)),
        (0.5, 0.0, 1.0, math.exp(-1.25)),
        (1.0, 0.0, 1.0, 1.0),
        (0.19, 0.2, 0.0, 0.0),
        (0.2, 0.2, 0.0, 1.0),
        (0.19, 0.2, 0.4, 0.0),
        (0.2, 0.2, 0.4, math.exp(-5)),
        (0.4, 0.2, 0.4, math.exp(-1.25)),
        (0.6, 0.2, 0.4, 1.0),
        (0.9, 0.2, 0.4, 1.0),
        (0.5, 1.0, 0.0, 0.0),
    ],
)
def test_ramp_up(progress, warmup, ramp, expected):
    assert slow.growing_weight(progress, warmup, ramp) == pytest.approx(expected)
    for given in (progress, torch.tensor(progress, dtype=DOUBLE)):
        assert float(losses.ramp_up(given, warmup, ramp)) == pytest.approx(expected, abs=1e-6)


def test_ramp_up_never_falls():
    weights = [float(losses.ramp_up(torch.tensor(i / 100), 0.25, 0.5)) for i in range(101)]
    assert weights == sorted(weights)


@pytest.mark.parametrize(("share", "true", "other"), [("all", 0.9 + 0.1 / 4, 0.1 / 4), ("others", 0.9, 0.1 / 3)])
def test_smoothed_cross_entropy_by_hand(share, true, other):
    logits = torch.tensor([[2.0, 0.0, -1.0, 0.5]], dtype=DOUBLE)
    logs = F.log_softmax(logits, dim=1)[0].tolist()
    expected = -(true * logs[1] + other * (logs[0] + logs[2] + logs[3]))
    close(losses.smoothed_cross_entropy(logits, torch.tensor([1]), 0.1, share), expected)


@pytest.mark.parametrize("epsilon", [0.9, 0.95, 1.0])
def test_all_of_a_label_may_go_to_the_others(epsilon):
    logits = torch.tensor([[2.0, 0.0, -1.0, 0.5]], dtype=DOUBLE)
    logs = F.log_softmax(logits, dim=1)[0]
    expected = -((1 - epsilon) * logs[1] + epsilon / 3 * (logs.sum() - logs[1]))
    close(losses.smoothed_cross_entropy(logits, torch.tensor([1]), epsilon, "others"), expected)


@pytest.mark.parametrize("share", ["all", "others"])
def test_no_smoothing_is_cross_entropy(share):
    logits, target = torch.randn(4, 5), torch.tensor([0, 3, 2, 4])
    assert torch.equal(losses.smoothed_cross_entropy(logits, target, 0.0, share), F.cross_entropy(logits, target))


@pytest.mark.parametrize("share", ["all", "others"])
def test_smoothing_leaves_void_positions_out(share):
    logits, target = torch.randn(4, 5), torch.tensor([0, 9, 2, 9])
    ours = losses.smoothed_cross_entropy(logits, target, 0.1, share, ignore_index=9)
    torch.testing.assert_close(ours, losses.smoothed_cross_entropy(logits[::2], target[::2], 0.1, share))


@pytest.mark.parametrize("share", ["all", "others"])
def test_smoothing_takes_probabilities(share):
    logits, target = torch.randn(4, 5), torch.tensor([0, 3, 2, 4])
    soft = losses.smoothed_cross_entropy(logits, 0 * target, 0.1, share, soft_target=F.one_hot(target, 5).float())
    torch.testing.assert_close(soft, losses.smoothed_cross_entropy(logits, target, 0.1, share))


@pytest.mark.parametrize("settings", [{}, {"epsilon": 0.3}, {"epsilon": 0.3, "share": "others"}], ids=str)
def test_label_smoothing_trains_on_that_loss(settings):
    student, images, target = nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), torch.randn(4, 3, 2, 2), torch.arange(4)
    step = create_method("label_smoothing", student, Task("classification", 5, (3, 2, 2)), **settings)(
        Batch(images, target)
    )
    assert torch.equal(step.loss, losses.smoothed_cross_entropy(student(images), target, **settings))


def test_task_loss_agrees_with_the_reference():
    logits, target = torch.randn(4, 5, dtype=DOUBLE), torch.tensor([0, 3, 2, 4])
    task = Task("classification", 5, (3, 8, 8))
    close(task.loss(logits, target), slow.cross_entropy(logits.tolist(), target.tolist()))
    soft = torch.softmax(torch.randn(4, 5, dtype=DOUBLE), dim=1)
    close(task.loss(logits, target, soft), slow.cross_entropy(logits.tolist(), soft.tolist()))


def test_soft_targets_of_another_shape_than_the_scores_are_refused():
    logits, target = torch.randn(4, 5), torch.tensor([0, 3, 2, 4])
    with pytest.raises(ValueError, match=r"soft_target \(4, 6\) must have the shape of the scores, \(4, 5\)"):
        Task("classification", 5, (3, 8, 8)).loss(logits, target, torch.rand(4, 6))


def test_task_loss_leaves_void_positions_out():
    logits, target = torch.randn(2, 5, 3, 4), torch.randint(5, (2, 3, 4))
    target[0, 0] = target[1, :, 2] = 255
    seen = target != 255
    ours = Task("segmentation", 5, (3, 3, 4), ignore_index=255).loss(logits, target)
    torch.testing.assert_close(ours, F.cross_entropy(logits.movedim(1, -1)[seen], target[seen]))


def test_task_loss_of_half_precision_is_computed_in_float32():
    logits, target = 300 * torch.randn(4, 5).half(), torch.tensor([0, 3, 2, 4])
    task = Task("classification", 5, (3, 8, 8))
    assert torch.equal(task.loss(logits, target), F.cross_entropy(logits.float(), target))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert task.loss(logits.bfloat16(), target).dtype == torch.float32


def test_half_precision_layers_are_left_by_the_losses_as_they_were():
    layer = nn.Linear(3, 5).bfloat16()
    losses.kd(layer(torch.randn(2, 3).bfloat16()), torch.randn(2, 5)).backward()
    assert layer.weight.dtype == layer.weight.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)]
)
def test_attention_has_the_gradient_of_its_formula(dtype, tolerance):
    feature = torch.randn(3, 5, 4, 2, dtype=torch.float64).to(dtype)
    slope = torch.randn(3, 8, dtype=torch.float64)
    ours, plain = feature.clone().requires_grad_(), feature.double().requires_grad_()
    attention = losses.attention(ours)
    assert attention.dtype == torch.promote_types(dtype, torch.float32)
    attention.backward(slope.to(attention.dtype))
    torch.nn.functional.normalize(plain.square().mean(dim=1).flatten(1), dim=1).backward(slope)
    assert ours.grad.dtype == dtype
    torch.testing.assert_close(ours.grad.double(), plain.grad, rtol=tolerance, atol=tolerance)
