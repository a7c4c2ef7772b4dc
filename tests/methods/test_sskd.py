"""SSKD and its teacher against the slow reference, and where their gradients go."""

import copy

import pytest
import torch
import torch.nn.functional as F

from helpers.batches import small_batch, small_task
from helpers.methods import small_method
from helpers.networks import small_student
from reference import sskd as slow
from selfdistill import create_method, distributed
from selfdistill.methods import find_method
from selfdistill.methods.sskd import select_rows, selective_kd
from selfdistill.methods.sskd_teacher import gather_with_grad


def made(name="sskd", *, rows=6, **settings):
    """The method in float64 and a batch."""
    kind, task = find_method(name), small_task(side=8)
    method = small_method(kind, task, **settings).double()
    batch = small_batch(kind, task, rows=rows)
    return method, batch._replace(images=batch.images.double())


def test_a_batch_of_one_image_is_no_trouble():
    method, batch = made(rows=1)
    step = method(batch)
    step.loss.backward()
    assert step.loss.isfinite() and step.losses["similarity"].abs() < 1e-12  # there is one image to choose from


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.75, 1.0])
def test_the_rows_that_teach_are_the_right_ones_and_the_least_wrong(share):
    scores, own = torch.randn(23, 6, dtype=torch.float64), torch.randint(6, (23,))
    kept = select_rows(scores, own, share)
    assert sorted(slow.taught(scores.tolist(), own.tolist(), share)) == kept.nonzero().flatten().tolist()
    assert kept[scores.argmax(dim=1) == own].all()


def test_rows_that_do_not_teach_get_no_gradient():
    teacher, own = torch.tensor([[3.0, 2.0, 1.0]] * 4), torch.tensor([0, 1, 2, 2])
    logits = torch.randn(4, 3, requires_grad=True)
    selective_kd(logits, teacher, own, 0.4, temperature=4.0).backward()
    assert logits.grad.abs().sum(dim=1).bool().tolist() == [True, True, False, False]


def test_a_frozen_network_stays_as_it_came_while_its_head_learns():
    method, batch = made("sskd_teacher", joint=False)
    before = copy.deepcopy(method.student.state_dict())
    method.train()
    assert not any(module.training for module in method.student.modules()) and method.head.training
    step = method(batch)
    assert step.losses.keys() == {"contrast"}
    step.loss.backward()
    assert all(parameter.grad is None for parameter in method.student.parameters())
    assert all(parameter.grad.count_nonzero() for parameter in method.head.parameters())
    assert all(torch.equal(value, before[key]) for key, value in method.student.state_dict().items())


@pytest.mark.slow
def test_a_student_learns_from_a_trained_teacher():
    teacher, batch = made("sskd_teacher")
    trained(teacher, batch)
    student, task = small_student(teacher.task).double(), teacher.task
    method = create_method("sskd", student, task, teacher=teacher).double().train()
    first = F.cross_entropy(method(batch).logits, batch.target)
    trained(method, batch)
    assert F.cross_entropy(method(batch).logits, batch.target) < 0.6 * first


def trained(method, batch):
    parameters = [parameter for parameter in method.parameters() if parameter.requires_grad]
    for _ in range(25):
        for parameter, gradient in zip(parameters, torch.autograd.grad(method(batch).loss, parameters), strict=True):
            parameter.data -= 0.1 * gradient


def test_the_batch_of_all_processes_counts_and_own_rows_learn(monkeypatch):
    rows, world = torch.randn(4, 3, requires_grad=True), 2
    monkeypatch.setattr(distributed, "is_distributed", lambda: True)
    monkeypatch.setattr(distributed, "gather_rows", lambda own: torch.cat([own.detach() + 1, own.detach()]))
    monkeypatch.setattr(distributed, "local_rows", lambda gathered: gathered[4:])
    gathered = gather_with_grad(rows)
    assert torch.equal(gathered, torch.cat([rows + 1, rows]))
    gathered.sum().backward()
    assert torch.equal(rows.grad, torch.full_like(rows, world))
