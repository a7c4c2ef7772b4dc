"""DLB: its terms against the slow reference, and what waits from step to step."""

import pytest
import torch

from helpers.batches import small_task
from helpers.methods import small_method
from helpers.networks import CLASSES
from reference import consistency as slow
from selfdistill import Batch
from selfdistill.methods import dlb


def made(**settings):
    """The method in float64."""
    return small_method(dlb.DLB, small_task(side=8), **settings).double()


def drawn(rows):
    """A batch of so many rows, another one at every call."""
    images, views = torch.randn(2, rows, 3, 8, 8, dtype=torch.float64)
    return Batch(images, torch.randint(CLASSES, (rows,)), views=views[:, None])


def seen(method, images):
    with torch.no_grad():
        return method.student(images).tolist()


@pytest.mark.parametrize("settings", [{}, {"weight": 0.5, "temperature": 1.5}], ids=str)
def test_it_agrees_with_the_reference_whatever_the_sizes_of_the_batches(settings):
    method, last = made(**settings), None
    for batch in map(drawn, (6, 6, 3, 5)):
        step = method(batch)
        if last is None:
            expected = {"task": slow.cross_entropy(step.logits.tolist(), batch.target.tolist())}
        else:
            expected = slow.dlb_terms(
                seen(method, batch.images),
                batch.target.tolist(),
                seen(method, last[0]),
                last[1].tolist(),
                last[2].tolist(),
                weight=method.weight,
                temperature=method.temperature,
            )
        assert {term: value.item() for term, value in step.losses.items()} == pytest.approx(expected, rel=1e-9)
        last = batch.views[:, 0], batch.target, step.logits.detach()


def test_the_new_images_teach_later_and_learn_now():
    method = made()
    method(drawn(6))
    step = method(drawn(4))
    (of_task,) = torch.autograd.grad(step.losses["task"], step.logits, retain_graph=True)
    assert of_task.count_nonzero() == of_task.numel()
    (of_kd,) = torch.autograd.grad(step.losses["kd"], step.logits, retain_graph=True, allow_unused=True)
    assert of_kd is None
    assert torch.autograd.grad(step.losses["kd"], method.student.fc.weight)[0].count_nonzero()


def test_what_waits_is_the_other_view_its_label_and_the_scores_without_gradient():
    method, batch = made(), drawn(4)
    assert method.get_extra_state() is None
    step = method(batch)
    for kept, expected in zip(method.get_extra_state(), (batch.views[:, 0], batch.target, step.logits), strict=True):
        assert torch.equal(kept, expected) and not kept.requires_grad


def test_several_processes_keep_the_whole_batch_and_take_their_own_part(monkeypatch):
    alone, first, second = made(), drawn(6), drawn(4)
    logits, expected = alone(first).logits, alone(second).losses
    monkeypatch.setattr(dlb, "gather_rows", lambda rows: torch.cat([-rows, rows]).detach())
    monkeypatch.setattr(dlb, "local_rows", lambda rows: rows.chunk(2)[1])
    method = made()
    method(first)
    for kept, own in zip(method.get_extra_state(), (first.views[:, 0], first.target, logits), strict=True):
        assert torch.equal(kept, torch.cat([-own, own]))
    assert method(second).losses == expected


def test_without_weight_the_old_images_are_still_trained_on():
    method, last, batch = made(weight=0.0), drawn(6), drawn(4)
    method(last)
    step = method(batch)
    expected = slow.cross_entropy(
        seen(method, batch.images) + seen(method, last.views[:, 0]), batch.target.tolist() + last.target.tolist()
    )
    assert step.losses.keys() == {"task"}
    assert step.loss.item() == pytest.approx(expected, rel=1e-9)
    with pytest.raises(ValueError, match="DLB: temperature=2.0 has no effect with weight=0"):
        made(weight=0.0, temperature=2.0)
