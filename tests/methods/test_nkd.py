"""NKD against its slow reference, and what each of its parts teaches."""

import pytest
import torch
import torch.nn.functional as F

from helpers.batches import small_batch, small_task
from helpers.methods import small_method
from helpers.networks import CLASSES, small_student
from reference import frskd as plain
from reference import nkd as slow
from selfdistill import create_method
from selfdistill.methods.nkd import NKD, other_classes, true_class


def made(**settings):
    """The method in float64, and a batch."""
    task = small_task(side=8)
    batch = small_batch(NKD, task, rows=7)
    return small_method(NKD, task, **settings).double(), batch._replace(images=batch.images.double())


@pytest.mark.parametrize("settings", [{}, {"gamma": 0.7, "temperature": 3.0}], ids=str)
def test_nkd_agrees_with_the_reference(settings):
    method, batch = made(**settings)
    with torch.no_grad():
        scores = method.student(batch.images).tolist()
        taught = method.teacher(batch.images).tolist()
    target = batch.target.tolist()
    expected = {
        "task": plain.cross_entropy(scores, target),
        "target": slow.nkd_true_class(scores, taught, target),
        "others": method.gamma * slow.nkd_other_classes(scores, taught, target, method.temperature),
    }
    assert {term: value.item() for term, value in method(batch).losses.items()} == pytest.approx(expected, rel=1e-9)


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


def test_without_gamma_there_is_no_part_for_the_others():
    method, batch = made(gamma=0.0)
    assert method(batch).losses.keys() == {"task", "target"}
    with pytest.raises(ValueError, match="NKD: temperature=2.0 has no effect with gamma=0"):
        made(gamma=0.0, temperature=2.0)


def test_mixed_labels_are_refused():
    method, batch = made()
    with pytest.raises(ValueError, match="NKD needs one class for each image, and these labels are mixed"):
        method(batch._replace(soft_target=F.one_hot(batch.target, CLASSES).double()))


def test_a_teacher_of_other_classes_is_refused():
    task = small_task(side=8)
    teacher = small_student(task._replace(num_classes=CLASSES + 1))
    with pytest.raises(ValueError, match="the teacher scores 6 classes and the task has 5"):
        create_method("nkd", small_student(task), task, teacher=teacher)
