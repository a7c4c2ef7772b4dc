"""The confidence penalty against the slow reference."""

import math

import pytest
import torch

from selfdistill.methods.max_entropy import entropy


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


def test_scores_beyond_all_doubt_leave_finite_gradients():
    logits = torch.tensor([[300.0, 0.0, -300.0]], requires_grad=True)
    entropy(logits).backward()
    assert logits.grad.isfinite().all()
