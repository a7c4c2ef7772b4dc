"""USKD against its slow reference, and what each of its parts teaches."""

import torch
import torch.nn.functional as F

from helpers.batches import small_task
from helpers.methods import method_and_batch
from helpers.networks import small_student
from selfdistill import create_method
from selfdistill.methods.uskd import other_classes, true_class


def test_soft_labels_are_constants():
    """Then the gradients are those of cross-entropy: p (s - y) / b, and (N(s) - Zipf) / b for the other classes."""
    logits, weak = torch.randn(4, 6, dtype=torch.float64).requires_grad_(), torch.randn(4, 6, dtype=torch.float64)
    target = torch.tensor([0, 5, 2, 2])
    own = F.one_hot(target, 6)
    scores = logits.detach().softmax(1)
    sure = (scores * own).sum(dim=1, keepdim=True) ** 2

    true_class(logits, target).backward()
    torch.testing.assert_close(logits.grad, (1 + sure - sure.mean()) * (scores - own) / 4)

    logits.grad, weak = None, weak.requires_grad_()
    other_classes(logits, weak, target).backward()
    assert weak.grad is None
    ratios = [each.detach().masked_fill(own.bool(), -torch.inf).softmax(1) for each in (logits, weak)]
    order = sum(ratios).argsort(dim=1, descending=True)
    law = torch.zeros_like(scores).scatter(1, order, 1 / torch.arange(1.0, 7.0, dtype=torch.float64).expand(4, 6))
    law = law * (1 - own)
    torch.testing.assert_close(logits.grad, (ratios[0] - law / law.sum(1, keepdim=True)) / 4)


def test_equal_scores_have_equal_soft_labels():
    logits, target = torch.tensor([[0.0, 2.0, 1.0, 1.0]], requires_grad=True), torch.tensor([0])
    other_classes(logits, logits, target).backward()
    assert logits.grad[0, 2] == logits.grad[0, 3]


def test_rows_that_stand_out_weigh_more():
    sure, unsure = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 0.0]])
    target = torch.tensor([0])
    alone = F.cross_entropy(sure, target) + F.cross_entropy(unsure, target)
    assert true_class(torch.cat([sure, unsure]), target.expand(2)) * 2 < alone  # the unsure one, of larger loss, less


def test_the_weak_head_reads_the_map_before_the_last():
    task = small_task(side=8)
    assert method_and_batch("uskd")[0].weak.in_features == 12
    assert create_method("uskd", small_student(task), task, taps=["stage1", "stage3"]).weak.in_features == 8
