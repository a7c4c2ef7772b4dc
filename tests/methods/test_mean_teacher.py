"""Mean teacher: its consistency against the slow reference, and how the teacher follows."""

import copy

import pytest
import torch

from helpers.batches import small_batch, small_task
from helpers.methods import small_method
from reference import consistency as slow
from selfdistill.methods.mean_teacher import MeanTeacher, consistency


def made(**settings):
    """The method in float64, its teacher away from its student, and a batch."""
    task = small_task(side=8)
    method = small_method(MeanTeacher, task, **settings).double()
    with torch.no_grad():
        for parameter in method.trailing.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    batch = small_batch(MeanTeacher, task, rows=6)
    return method, batch._replace(images=batch.images.double(), views=batch.views.double())


def walked(method, batch, steps):
    """A few training steps; the values of one weight, from the first on."""
    optimizer = torch.optim.SGD(method.student.parameters(), lr=0.05)
    history = [method.student.fc.weight.detach().clone()]
    for _ in range(steps):
        optimizer.zero_grad()
        method(batch, 0.5).loss.backward()
        optimizer.step()
        method.after_step()
        history.append(method.student.fc.weight.detach().clone())
    return history


def test_only_the_student_learns():
    method, batch = made()
    before = copy.deepcopy(method.trailing.state_dict())
    method(batch, 0.5).losses["consistency"].backward()
    assert all(parameter.grad.count_nonzero() for parameter in method.student.parameters())
    assert all(parameter.grad is None for parameter in method.trailing.parameters())
    assert all(torch.equal(value, before[key]) for key, value in method.trailing.state_dict().items())


@pytest.mark.parametrize("decay", [0.0, 0.7, 0.999])
def test_the_teacher_is_the_mean_of_the_past_and_then_a_moving_average(decay):
    method, batch = made(decay=decay)
    method.trailing.net.load_state_dict(method.student.state_dict())
    history = walked(method, batch, 6)
    expected = slow.trailing_average([each.numpy() for each in history], decay)
    torch.testing.assert_close(method.trailing.net.fc.weight.detach(), torch.from_numpy(expected), rtol=1e-9, atol=0)
    if decay == 0.999:
        torch.testing.assert_close(method.trailing.net.fc.weight.detach(), torch.stack(history).mean(dim=0))


def test_the_teacher_has_the_students_statistics_and_stays_in_eval_mode():
    method, batch = made()
    walked(method.train(), batch, 2)
    assert not any(module.training for module in method.trailing.modules() if module is not method.trailing)
    students = dict(method.student.named_buffers())
    assert all(torch.equal(value, students[name]) for name, value in method.trailing.net.named_buffers())
    assert students["stem.1.num_batches_tracked"] == 2


def test_a_resumed_teacher_follows_at_the_pace_it_had():
    method, batch = made()
    walked(method, batch, 3)
    resumed, _ = made()
    resumed.load_state_dict(method.state_dict())
    for each in (method, resumed):
        walked(each, batch, 1)
    weights = [each.trailing.net.fc.weight for each in (method, resumed)]
    assert torch.equal(*weights)


def test_of_several_labels_each_class_has_a_consistency_of_yes_and_no():
    task = small_task("multilabel", side=8)
    method, batch = small_method(MeanTeacher, task, ramp=0.0).double(), small_batch(MeanTeacher, task, rows=6)
    batch = batch._replace(images=batch.images.double(), views=batch.views.double(), target=batch.target * 0 - 100)
    step = method(batch, 0.5)
    pairs = [torch.stack([scores * 0, scores], dim=-1) for scores in (step.logits, step.teacher_logits)]
    each = [consistency(own, teacher) for own, teacher in zip(*(pair.unbind(1) for pair in pairs), strict=True)]
    torch.testing.assert_close(step.losses["consistency"], 10 * sum(each))
    assert step.losses["task"] == 0  # it teaches where no label is known
