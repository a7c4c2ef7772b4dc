"""MixSKD against the slow reference, its mixtures, and where its gradients go."""

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from helpers.expected_terms import weights
from helpers.methods import method_and_batch
from helpers.networks import CLASSES
from reference import branches as slow
from selfdistill.methods.mixskd import mean_square

SHARE, ORDER = 0.3, [3, 0, 4, 1, 2]


@pytest.fixture
def drawn(monkeypatch):
    """Every mixture is of these shares and in this order."""
    monkeypatch.setattr(
        "selfdistill.mixing.mixing_weight", lambda alpha, device: torch.tensor(SHARE, dtype=torch.float64)
    )
    monkeypatch.setattr(torch, "randperm", lambda rows, device=None: torch.tensor(ORDER))


made = functools.partial(method_and_batch, "mixskd", side=16)


def expected_terms(method, batch):
    """From one pass over images and mixtures: batch norms see both together."""
    images = batch.images.numpy()
    both = np.concatenate([images, slow.mixtures(images, SHARE, ORDER)])
    with torch.no_grad():
        logits, features = method.taps(torch.from_numpy(both))
        pairs = [branch.with_map(feature) for branch, feature in zip(method.branches, features, strict=False)]
    teacher, discriminators = weights(method.self_teacher), weights(method.discriminators)
    terms = slow.mixskd(
        [scores.numpy() for scores, _ in [*pairs, (logits, None)]],
        [final.numpy() for _, final in [*pairs, (None, features[-1])]],
        batch.target.tolist(),
        share=SHARE,
        order=ORDER,
        temperature=method.temperature,
        teacher=teacher,
        discriminators=discriminators,
    )
    assert teacher.all_read() and discriminators.all_read()
    return terms


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("settings", [{}, {"temperature": 2.0, "adversarial": True}, {"mixed_task": False}], ids=str)
def test_it_agrees_with_the_reference(settings):
    method, batch = made(**settings)
    expected = expected_terms(method, batch)
    if not method.mixed_task:
        del expected["mixed_task"]
    step = method(batch)
    assert step.losses.keys() == expected.keys()
    for term, value in step.losses.items():
        np.testing.assert_allclose(value.item(), expected[term], rtol=1e-9, err_msg=term)
    assert len(step.logits) == len(batch.images)


@pytest.mark.usefixtures("drawn")
def test_soft_labels_mix_every_cross_entropy():
    method, batch = made()
    ends = [F.one_hot(target, CLASSES).double() for target in (batch.target, batch.target.flip(0))]
    apart = [method(batch._replace(soft_target=soft_target)).losses for soft_target in ends]
    mixed = method(batch._replace(soft_target=0.4 * ends[0] + 0.6 * ends[1])).losses
    for term in ("task", "branches", "mixed_task"):
        torch.testing.assert_close(mixed[term], 0.4 * apart[0][term] + 0.6 * apart[1][term])


def test_a_mixture_of_one_image_alone_has_nothing_to_teach(monkeypatch):
    monkeypatch.setattr(
        "selfdistill.mixing.mixing_weight", lambda alpha, device: torch.tensor(1.0, dtype=torch.float64)
    )
    method, batch = made()
    with torch.no_grad():
        method.self_teacher[0].weight.zero_()
        method.self_teacher[1].bias.zero_()
    step = method(batch)
    assert step.losses["feature"] < 1e-18
    uniform = torch.zeros_like(step.logits)
    own = 9 * F.kl_div((step.logits / 3).log_softmax(1), uniform.softmax(1), reduction="batchmean")
    torch.testing.assert_close(
        step.losses["kd"], 2 * own
    )  # of the student's own scores, from a teacher that knows nothing


def test_both_sides_of_the_feature_loss_learn():
    first, second = (torch.randn(2, 3, 4, 4, requires_grad=True) for _ in range(2))
    mean_square(first, second).backward()
    torch.testing.assert_close(first.grad, 2 * (first - second).detach() / first.numel())
    torch.testing.assert_close(first.grad, -second.grad)


def test_adversarial_maps_deceive_the_discriminators_that_still_learn():
    gradients = []
    for adversarial in (False, True):
        method, _ = made(adversarial=adversarial)
        maps = [torch.randn(3, 16, 2, 2, generator=torch.Generator().manual_seed(i)).double() for i in range(2)]
        maps = [each.requires_grad_() for each in maps]
        discriminator = method.discriminators[0]
        loss = method.discriminator_loss(discriminator, *maps)
        gradients.append(torch.autograd.grad(loss, [*maps, *discriminator.parameters()]))
    for place, (helped, deceived) in enumerate(zip(*gradients, strict=True)):
        torch.testing.assert_close(deceived, -helped if place < 2 else helped)


def test_without_the_mixtures_labels_the_self_teacher_stays_as_it_was_drawn():
    method, batch = made(mixed_task=False)
    step = method(batch)
    assert "mixed_task" not in step.losses
    assert not any(parameter.requires_grad for parameter in method.self_teacher.parameters())
    assert all(parameter.requires_grad for parameter in made()[0].self_teacher.parameters())


def test_each_step_draws_its_own_mixture():
    method, batch = made()
    first, second = (method(batch).losses["mixed_task"] for _ in range(2))
    assert first != second
