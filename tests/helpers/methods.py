"""Methods around small networks, and what their losses reach."""

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from helpers.batches import double_batch, small_batch, small_task
from helpers.networks import small_student
from selfdistill import Batch, Task
from selfdistill.method import Method
from selfdistill.methods import find_method


def small_method(kind: type[Method], task: Task, *, student: nn.Module | None = None, seed: int = 3, **settings):
    """The method around a small student, in training mode, with a teacher where it needs one."""
    student = small_student(task) if student is None else student
    teacher = copy.deepcopy(small_teacher(kind.teacher_method, task)) if kind.needs_teacher else None
    if teacher is not None:
        teacher.to(next(student.parameters()).dtype)
    torch.manual_seed(seed)
    return kind(student, task, teacher=teacher, **settings).train()


@contextmanager
def float64_by_default() -> Iterator[None]:
    """What is drawn or built in here is float64 from the start. In float32, processors draw different last digits."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@functools.cache
@float64_by_default()
def small_teacher(method: str, task: Task) -> nn.Module:
    """A small network, or the method that trained it where one is named, after 25 steps on one batch, in float64."""
    found = find_method(method or "baseline")
    trained, batch = small_method(found, task, student=small_student(task, seed=4), seed=5), small_batch(found, task)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.05, momentum=0.9)
    for _ in range(25):
        optimizer.zero_grad()
        trained(batch).loss.backward()
        optimizer.step()
    optimizer.zero_grad()
    return (trained if method else trained.student).eval()


def settled_in_double(method: Method) -> Method:
    """The method in float64, its norms and other vectors away from where they start."""
    method = method.double()
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return method


def method_and_batch(name: str, *, side: int = 8, rows: int = 5, **settings: Any) -> tuple[Any, Batch]:
    """A method in float64, its norms away from where they start, and a batch."""
    kind, task = find_method(name), small_task(side=side)
    return settled_in_double(small_method(kind, task, **settings)), double_batch(kind, task, rows)


def names_reached(method: Method, term: Tensor) -> list[str]:
    """The parameters of the method to which a loss term sends a gradient."""
    method.zero_grad(set_to_none=True)
    term.backward(retain_graph=True)
    return [name for name, p in method.named_parameters() if p.grad is not None and p.grad.count_nonzero()]


def agree(losses: dict[str, Tensor], expected: dict[str, float]) -> None:
    assert losses.keys() == expected.keys()
    for term, value in losses.items():
        np.testing.assert_allclose(value.item(), expected[term], rtol=1e-9, atol=1e-14, err_msg=term)
