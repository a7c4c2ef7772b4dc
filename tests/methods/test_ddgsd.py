"""DDGSD: its terms against the slow reference, and which of the two views learns from which."""

import functools

import pytest
import torch

from helpers.methods import method_and_batch
from reference import consistency as slow
from selfdistill.methods.ddgsd import mean_discrepancy

made = functools.partial(method_and_batch, "ddgsd", rows=6)


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
    distance = mean_discrepancy(features, others)
    assert distance.item() == pytest.approx(
        slow.mean_embedding_distance(features.detach().numpy(), others.detach().numpy()), rel=1e-9
    )
    one, other = torch.autograd.grad(distance, (features, others))
    assert one.count_nonzero() and torch.equal(one, -other)
    assert mean_discrepancy(features, features.flip(0)).item() == pytest.approx(0, abs=1e-20)
