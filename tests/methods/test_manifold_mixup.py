"""Manifold mixup against a reference that stops the network, and what becomes of the student's hooks."""

import copy
import functools

import pytest
import timm
import torch

from helpers.batches import small_batch, small_task
from helpers.methods import small_method
from helpers.networks import CLASSES, small_student
from reference import manifold_mixup as slow
from selfdistill import create_method
from selfdistill.methods import find_method

ROWS = 6


def made(**settings):
    kind, task = find_method("manifold_mixup"), small_task(side=8)
    batch = small_batch(kind, task, rows=ROWS)
    return small_method(kind, task, **settings).double(), batch._replace(images=batch.images.double())


def functions(student):
    """What the student runs, cut behind its stages."""
    return [
        lambda images: student.stage1(student.stem(images)),
        student.stage2,
        student.stage3,
        lambda deep: student.fc(deep.mean(dim=(2, 3))),
    ]


def gradients(student, loss):
    return torch.autograd.grad(loss, list(student.parameters()), retain_graph=True)


@pytest.mark.parametrize("layer", [0, 1, 2, 3])
def test_scores_are_those_of_a_network_stopped_at_the_place(layer):
    method, batch = made(levels=3)
    order, weight = torch.tensor([3, 1, 0, 2, 5, 4]), torch.tensor(0.7, dtype=torch.float64)
    expected = slow.scores(functions(method.student), batch.images, layer=layer, weight=0.7, order=order.tolist())
    logits = method.mixed(batch.images, torch.tensor(layer), weight=weight, order=order)
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-12)
    assert (logits - method.student(batch.images)).abs().max() > 1e-3
    for ours, theirs in zip(
        *(gradients(method.student, each.square().sum()) for each in (logits, expected)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


def draws(method, batch, seeds):
    """The steps of some seeds, each with the layer, the weight and the order that it drew."""
    drawn, mixed = [], method.mixed

    def noting(images, layer, *, weight, order):
        drawn.append((layer, weight, order))
        return mixed(images, layer, weight=weight, order=order)

    method.mixed = noting
    for seed in seeds:
        torch.manual_seed(seed)
        step = method(batch)
        yield step, *drawn.pop()


def test_it_agrees_with_the_reference():
    method, batch = made()
    layers = set()
    for step, layer, weight, order in draws(method, batch, range(12)):
        mixture = {"weight": weight.item(), "order": order.tolist()}
        logits = slow.scores(functions(method.student), batch.images, layer=layer.item(), **mixture)
        torch.testing.assert_close(step.logits, logits, rtol=1e-6, atol=1e-9)
        expected = slow.cross_entropy(step.logits.tolist(), batch.target.tolist(), **mixture)
        assert step.losses.keys() == {"task"}
        assert step.loss.item() == pytest.approx(expected, rel=1e-6)  # the weight is drawn in single precision
        layers.add(layer.item())
    assert layers == {0, 1, 2}


@pytest.mark.parametrize("alpha", [0.2, 2.0])
@pytest.mark.slow
def test_draws_are_fair_and_the_own_row_leads(alpha):
    method, batch = made(alpha=alpha)
    method.mixed = lambda images, layer, *, weight, order: (
        seen.append((layer, weight, order)) or images.flatten(1)[:, :5]
    )
    seen = []
    for _ in range(900):
        method(batch)
    layers, weights, orders = map(torch.stack, zip(*seen, strict=True))
    assert layers.bincount().tolist() == pytest.approx([300] * 3, rel=0.25)
    assert weights.min() >= 0.5
    # The square of w - 1/2 is the same for w and 1 - w: that of a Beta(alpha, alpha) has this mean.
    assert ((weights - 0.5) ** 2).mean().item() == pytest.approx(0.25 / (2 * alpha + 1), rel=0.1)
    assert torch.equal(orders.sort(dim=1).values, torch.arange(ROWS).expand_as(orders))
    assert orders.double().mean(dim=0).tolist() == pytest.approx([(ROWS - 1) / 2] * ROWS, rel=0.1)


def test_either_row_of_a_pair_may_lead():
    method, batch = made()
    order = torch.tensor([3, 1, 0, 2, 5, 4])
    found = []
    for weight, partner in ((0.7, order), (0.3, order.argsort())):
        weight = torch.tensor(weight, dtype=torch.float64)
        logits = method.mixed(batch.images, torch.tensor(2), weight=weight, order=partner)
        own, other = (method.task.loss(logits, batch.target[rows]) for rows in (slice(None), partner))
        found.append(weight * own + (1 - weight) * other)
    torch.testing.assert_close(*found)


def test_nothing_is_mixed_outside_a_training_step():
    method, batch = made()
    twin = copy.deepcopy(method.student)
    torch.testing.assert_close(method.student(batch.images), twin(batch.images), rtol=0, atol=0)
    method.student.eval()
    step = method(batch)
    assert torch.equal(step.logits, method.student(batch.images))
    assert torch.equal(step.loss, method.task.loss(step.logits, batch.target))


def test_hooks_go_back_to_sleep_when_the_student_fails():
    method, batch = made()

    def fail(*args):
        raise RuntimeError("out of memory")

    with method.student.fc.register_forward_hook(fail), pytest.raises(RuntimeError, match="out of memory"):
        method(batch)
    twin = small_student(method.task).double()
    assert torch.equal(method.student(batch.images), twin(batch.images))


def test_one_forward_and_nothing_that_only_training_needs():
    method, batch = made()
    assert all(name.startswith("student.") for name in method.state_dict())
    before = method.student.stem[1].num_batches_tracked.item()
    method(batch)
    assert method.student.stem[1].num_batches_tracked == before + 1


def test_setting_up_disturbs_neither_modes_nor_statistics_nor_random_numbers():
    task = small_task()
    student = small_student(task)
    student.stage1.eval()
    modes, state = [m.training for m in student.modules()], copy.deepcopy(student.state_dict())
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    create_method("manifold_mixup", student, task)
    assert torch.equal(torch.rand(3), expected)
    assert [m.training for m in student.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in student.state_dict().items())


def test_half_of_a_residual_block_is_refused():
    task = small_task()
    make = functools.partial(create_method, "manifold_mixup", task=task, levels=1)
    with pytest.raises(ValueError, match=r"scores of SmallResNet do not follow from 'stage2.conv2' alone"):
        make(small_student(task), taps=["stage2.conv2"])
    assert make(small_student(task), taps=["stage2"]).levels == 1


def test_maps_of_no_submodule_are_refused():
    net = timm.create_model("hiera_tiny_224", num_classes=CLASSES, img_size=64, embed_dim=8, num_heads=1)
    with pytest.raises(ValueError, match=r"forward_intermediates\[0\] is no submodule"):
        create_method("manifold_mixup", net, small_task(side=64))
