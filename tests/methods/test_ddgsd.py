"""DDGSD: its terms against the slow reference, and which of the two views learns from which."""

import pytest
import torch
import torch.nn.functional as F

from helpers.batches import small_batch, small_task
from helpers.methods import small_method
from helpers.networks import CLASSES
from reference import consistency as slow
from reference.frskd import cross_entropy, soft_label_loss
from selfdistill.methods.ddgsd import DDGSD, discrepancy


def made(**settings):
    """The method in float64 and a batch."""
    task = small_task(side=8)
    batch = small_batch(DDGSD, task, rows=6)
    batch = batch._replace(images=batch.images.double(), views=batch.views.double())
    return small_method(DDGSD, task, **settings).double(), batch


@pytest.mark.parametrize("settings", [{}, {"weight": 0.5, "mu": 2.0, "temperature": 1.5}], ids=str)
def test_it_agrees_with_the_reference(settings):
    method, batch = made(**settings)
    with torch.no_grad():
        every, features = method.taps(torch.cat([batch.images, batch.views[:, 0]]))
    first, second, deepest = every[:6].tolist(), every[6:].tolist(), features[-1].numpy()
    labels = batch.target.tolist()
    there, back = (soft_label_loss(*pair, method.temperature) for pair in ((first, second), (second, first)))
    expected = {
        "task": (cross_entropy(first, labels) + cross_entropy(second, labels)) / 2,
        "kd": method.weight * (there + back),
        "mmd": method.mu * slow.mean_embedding_distance(deepest[:6], deepest[6:]),
    }
    step = method(batch)
    assert {term: value.item() for term, value in step.losses.items()} == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(step.logits, every[:6])


def test_exchanging_the_views_changes_no_term():
    method, batch = made()
    losses = method(batch).losses
    for term, value in method(batch._replace(images=batch.views[:, 0], views=batch.images[:, None])).losses.items():
        torch.testing.assert_close(value, losses[term])


def test_each_view_is_a_constant_where_it_teaches():
    method, batch = made()
    step = method(batch)
    softened = [
        (each / 3).softmax(dim=1) for each in method.student(torch.cat([batch.images, batch.views[:, 0]])).chunk(2)
    ]
    (gradient,) = torch.autograd.grad(step.losses["kd"], step.logits)
    torch.testing.assert_close(gradient, 3 * (softened[0] - softened[1]) / 6)


def test_mean_embeddings_are_drawn_together_from_both_sides():
    features, others = (torch.randn(4, 3, 2, 2).double().requires_grad_() for _ in range(2))
    distance = discrepancy(features, others)
    assert distance.item() == pytest.approx(
        slow.mean_embedding_distance(features.detach().numpy(), others.detach().numpy()), rel=1e-9
    )
    one, other = torch.autograd.grad(distance, (features, others))
    assert one.count_nonzero() and torch.equal(one, -other)
    assert discrepancy(features, features.flip(0)).item() == pytest.approx(0, abs=1e-20)


def test_both_views_are_one_pass():
    method, batch = made()
    method(batch)
    assert method.student.stem[1].num_batches_tracked == 1


@pytest.mark.parametrize(("settings", "gone"), [({"weight": 0.0}, "kd"), ({"mu": 0.0}, "mmd")], ids=str)
def test_a_term_that_weighs_nothing_is_not_there(settings, gone):
    method, batch = made(**settings)
    assert method(batch).losses.keys() == {"task", "kd", "mmd"} - {gone}


def test_a_temperature_without_effect_is_refused():
    with pytest.raises(ValueError, match="DDGSD: temperature=2.0 has no effect with weight=0"):
        made(weight=0.0, temperature=2.0)


def test_mixed_labels_are_refused():
    method, batch = made()
    with pytest.raises(ValueError, match="these labels are mixed; use mix=none"):
        method(batch._replace(soft_target=F.one_hot(batch.target, CLASSES).double()))
