"""The focal loss against the slow reference."""

import pytest
import torch
import torch.nn.functional as F

from selfdistill.losses import focal_loss


def test_without_focus_it_is_cross_entropy():
    logits, target = torch.randn(7, 4, dtype=torch.float64), torch.randint(4, (7,))
    torch.testing.assert_close(focal_loss(logits, target, 0.0), F.cross_entropy(logits, target))


def test_what_is_known_weighs_less_than_what_is_not():
    target = torch.tensor([0])
    known, unknown = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    kept = [focal_loss(logits, target, 2.0) / F.cross_entropy(logits, target) for logits in (known, unknown)]
    p = torch.sigmoid(torch.tensor(3.0))
    torch.testing.assert_close(torch.stack(kept), torch.stack([(1 - p) ** 2, p**2]))


def test_the_weight_is_differentiated_too():
    logits = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    target = torch.randint(3, (5,))
    assert torch.autograd.gradcheck(lambda scores: focal_loss(scores, target, 2.0), logits)
    focal_loss(logits, target, 2.0).backward()
    p = logits.detach().softmax(dim=1).gather(1, target[:, None])
    slope = -((1 - p) ** 2) / p + 2 * (1 - p) * p.log()  # by p
    step = p * (F.one_hot(target, 3) - logits.detach().softmax(dim=1))  # of p by each score
    torch.testing.assert_close(logits.grad, slope * step / 5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_scores_beyond_all_doubt_leave_finite_gradients(gamma):
    logits = torch.tensor([[300.0, 0.0, -300.0]] * 3, requires_grad=True)
    focal_loss(logits, torch.arange(3), gamma).backward()
    assert logits.grad.isfinite().all()
