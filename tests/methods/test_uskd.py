"""USKD against its slow reference, and what each of its parts teaches."""

import pytest
import torch
import torch.nn.functional as F

from helpers.batches import small_batch, small_task
from helpers.methods import names_reached, small_method
from helpers.networks import CLASSES, small_student
from reference import frskd as plain
from reference import nkd as slow
from selfdistill import create_method
from selfdistill.methods.uskd import USKD, other_classes, true_class


def made(rows=7, **settings):
    """The method in float64, and a batch."""
    task = small_task(side=8)
    batch = small_batch(USKD, task, rows=rows)
    return small_method(USKD, task, **settings).double(), batch._replace(images=batch.images.double())


@pytest.mark.parametrize("settings", [{}, {"alpha": 1.0, "beta": 0.3, "mu": 0.005}], ids=str)
@pytest.mark.parametrize("rows", [7, 2])
def test_uskd_agrees_with_the_reference(settings, rows):
    method, batch = made(rows, **settings)
    with torch.no_grad():
        logits, features = method.taps(batch.images)
        weights = method.weak.weight, method.weak.bias
        weak = torch.einsum("bchw,kc->bk", features[1], weights[0]) / features[1][0, 0].numel() + weights[1]
    scores, weak, target = logits.tolist(), weak.tolist(), batch.target.tolist()
    expected = {
        "task": plain.cross_entropy(scores, target),
        "target": method.alpha * slow.uskd_true_class(scores, target),
        "others": method.beta * slow.uskd_other_classes(scores, weak, target),
        "weak": method.mu * slow.smoothed(weak, target),
    }
    assert {term: value.item() for term, value in method(batch).losses.items()} == pytest.approx(expected, rel=1e-9)


def reached(method, term):
    """The parts of the method to which a loss term sends a gradient."""
    named = names_reached(method, term)
    return {".".join(name.split(".")[: 2 if name.startswith("student") else 1]) for name in named}


def test_each_term_teaches_whom_it_should():
    method, batch = made()
    losses = method(batch).losses
    shared = {"student.stem", "student.stage1", "student.stage2"}
    for term in ("task", "target", "others"):
        assert reached(method, losses[term]) == shared | {"student.stage3", "student.fc"}, term
    assert reached(method, losses["weak"]) == shared | {"weak"}


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


def test_terms_that_weigh_nothing_are_not_there():
    method, batch = made(alpha=0.0, beta=0.0)
    assert method(batch).losses.keys() == {"task", "weak"}


def test_mixed_labels_are_refused():
    method, batch = made()
    with pytest.raises(ValueError, match="USKD needs one class for each image, and these labels are mixed"):
        method(batch._replace(soft_target=F.one_hot(batch.target, CLASSES).double()))


def test_the_weak_head_reads_the_map_before_the_last():
    task = small_task(side=8)
    assert made()[0].weak.in_features == 12
    assert create_method("uskd", small_student(task), task, taps=["stage1", "stage3"]).weak.in_features == 8
    with pytest.raises(ValueError, match="USKD reads the feature map before the last, and this student has one map"):
        create_method("uskd", small_student(task), task, taps=["stage3"])
