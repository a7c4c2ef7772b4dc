"""NKD against its slow reference, and what each of its parts teaches."""

import torch
import torch.nn.functional as F

from selfdistill.methods.nkd import other_classes, true_class


def test_the_teachers_scores_are_constants():
    logits, taught = torch.randn(2, 4, 6, dtype=torch.float64).requires_grad_()
    target = torch.tensor([0, 5, 2, 2])
    logits, taught = (each.detach().requires_grad_() for each in (logits, taught))
    (true_class(logits, taught, target) + other_classes(logits, taught, target, temperature=2.0)).backward()
    assert taught.grad is None and logits.grad.count_nonzero() == logits.numel()


def test_gradient_pulls_the_other_classes_to_the_teachers_ratios():
    """d / d s = T (N(s) - N(t)) / b for the other classes, nothing for the true one."""
    logits, taught = torch.randn(4, 6, dtype=torch.float64).requires_grad_(), torch.randn(4, 6, dtype=torch.float64)
    target = torch.tensor([0, 5, 2, 2])
    other_classes(logits, taught, target, temperature=3.0).backward()
    own = F.one_hot(target, 6).bool()
    ratios, aims = (each.detach().masked_fill(own, -torch.inf).div(3).softmax(1) for each in (logits, taught))
    torch.testing.assert_close(logits.grad, 3 * (ratios - aims) / 4)


def test_the_other_classes_do_not_care_how_sure_the_teacher_is_of_the_true_one():
    logits, taught = torch.randn(2, 4, 6)
    target = torch.tensor([0, 5, 2, 2])
    surer = taught + 3 * F.one_hot(target, 6)
    torch.testing.assert_close(other_classes(logits, surer, target), other_classes(logits, taught, target))
    assert true_class(logits, surer, target) > true_class(logits, taught, target)
