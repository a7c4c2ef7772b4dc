"""The confidence penalty against the slow reference."""

import math

import pytest
import torch
import torch.nn.functional as F

from helpers.batches import small_batch, small_task
from helpers.methods import small_method
from helpers.networks import CLASSES
from reference import penalties as slow
from selfdistill.methods import find_method
from selfdistill.methods.max_entropy import entropy


def made(**settings):
    kind, task = find_method("max_entropy"), small_task(side=8)
    batch = small_batch(kind, task, rows=6)
    return small_method(kind, task, **settings).double(), batch._replace(images=batch.images.double())


@pytest.mark.parametrize("weight", [0.1, 2.0])
@pytest.mark.parametrize("mixed", [False, True])
def test_it_agrees_with_the_reference(weight, mixed):
    method, batch = made(weight=weight)
    if mixed:
        one_hot = F.one_hot(batch.target, CLASSES).double()
        batch = batch._replace(soft_target=0.3 * one_hot + 0.7 * one_hot.flip(0))
    labels = batch.soft_target if mixed else batch.target
    step = method(batch)
    logits = step.logits.tolist()
    expected = {"task": slow.cross_entropy(logits, labels.tolist()), "confidence": -weight * slow.entropy(logits)}
    assert {term: value.item() for term, value in step.losses.items()} == pytest.approx(expected, rel=1e-9)


def test_entropy_is_that_of_a_die_at_most_and_nothing_for_the_certain():
    assert entropy(torch.full((2, 6), 3.0)).item() == pytest.approx(math.log(6))
    assert entropy(1000 * torch.eye(3)).item() == 0
    assert 0 < entropy(torch.randn(4, 6)) < math.log(6)


def test_every_certainty_pulls_its_score_down_by_its_own_amount():
    logits = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    (-entropy(logits)).backward()
    log_p = logits.detach().log_softmax(dim=1)
    own = -(log_p.exp() * log_p).sum(dim=1, keepdim=True)
    torch.testing.assert_close(logits.grad, log_p.exp() * (log_p + own) / 3)


def test_the_penalty_reaches_the_student():
    method, batch = made()
    method(batch).losses["confidence"].backward()
    assert all(parameter.grad.count_nonzero() for parameter in method.student.parameters())


def test_scores_beyond_all_doubt_leave_finite_gradients():
    logits = torch.tensor([[300.0, 0.0, -300.0]], requires_grad=True)
    entropy(logits).backward()
    assert logits.grad.isfinite().all()


def test_a_penalty_of_no_weight_is_refused():
    with pytest.raises(ValueError, match="MaxEntropy: weight=0.0 should be greater than 0"):
        made(weight=0.0)
