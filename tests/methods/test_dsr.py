"""The shape of scores from batch to batch, against the slow reference."""

import io

import numpy as np
import pytest
import torch

from helpers.batches import small_batch, small_task
from helpers.methods import small_method
from helpers.networks import CLASSES
from reference import lightskd as slow
from selfdistill.methods import find_method


def made(**settings):
    kind, task = find_method("dsr"), small_task(side=8)
    method, batch = small_method(kind, task, **settings).double(), small_batch(kind, task, rows=6)
    return method, batch._replace(images=batch.images.double())


def some(batch, rows):
    """A batch of these rows alone."""
    return batch._replace(images=batch.images[rows], target=batch.target[rows], index=batch.index[rows])


def students(method, batch):
    with torch.no_grad():
        return method.student(batch.images).numpy()


@pytest.mark.parametrize("settings", [{}, {"weight": 0.5, "temperature": 2.0}], ids=str)
@pytest.mark.parametrize("sizes", [(6, 6, 6), (6, 4, 5, 6), (2, 6)], ids=str)
def test_dsr_agrees_with_the_reference_over_steps_of_any_size(settings, sizes):
    method, batch = made(**settings)
    batches = [some(batch, torch.randperm(6)[:size]) for size in sizes]
    scores, targets = [students(method, each) for each in batches], [each.target.tolist() for each in batches]
    expected = slow.dsr(scores, targets, weight=method.weight, temperature=method.temperature)
    for each, terms in zip(batches, expected, strict=True):
        losses = method(each).losses
        assert losses.keys() == terms.keys()
        for term, value in losses.items():
            np.testing.assert_allclose(value.item(), terms[term], rtol=1e-9, atol=1e-14, err_msg=term)


def test_first_batch_has_no_predecessor_and_learns_nothing_from_it():
    method, batch = made()
    shape = method(batch).losses["shape"]
    shape.backward()
    assert shape.item() == 0
    assert all(p.grad.abs().max() < 1e-12 for p in method.student.parameters())


def test_the_batch_before_is_a_constant():
    method, batch = made()
    method(some(batch, [0, 1, 2]))
    assert not method.previous.requires_grad and method.previous.grad_fn is None
    method(some(batch, [3, 4, 5])).losses["shape"].backward()  # a second pass through the first graph would fail
    method(some(batch, [0, 1, 2])).losses["shape"].backward()
    assert all(p.grad.count_nonzero() for p in method.student.parameters())


def test_a_batch_has_the_shape_of_itself_whatever_the_order_of_its_classes():
    method, batch = made()
    method(batch)
    assert method(batch).losses["shape"].item() == pytest.approx(0, abs=1e-12)
    shuffled = torch.randperm(CLASSES)
    with torch.no_grad():
        for parameter in method.student.fc.parameters():
            parameter.copy_(parameter[shuffled])
    assert method(batch).losses["shape"].item() == pytest.approx(0, abs=1e-12)
    assert method(some(batch, [1, 0, 2, 3, 4, 5])).losses["shape"].item() > 1e-6


@pytest.mark.parametrize("before", [[], [[0, 1, 2, 3]], [[0, 1, 2, 3, 4, 5], [1, 2]]], ids=str)
def test_memory_is_saved_and_resumed_whatever_its_size(before):
    method, batch = made()
    for rows in before:
        method(some(batch, rows))
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    resumed, _ = made()
    resumed(batch)
    resumed.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert torch.equal(resumed.previous, method.previous)
    step = [each(batch).losses["shape"].item() for each in (method, resumed)]
    assert step[0] == step[1]
    assert (step[0] > 0) == bool(before)


def test_memory_does_not_ship():
    method, batch = made()
    method(batch)
    assert not any("previous" in key or "extra" in key for key in method.student.state_dict())
