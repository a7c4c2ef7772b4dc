"""PS-KD: its target against the slow reference, and what its memory holds."""

import pytest
import torch
import torch.nn.functional as F

from helpers.batches import small_batch, small_task
from helpers.methods import small_method
from helpers.networks import CLASSES
from reference import consistency as slow
from selfdistill.methods import ps_kd

ROWS = [7, 0, 31, 12, 5, 4]


def made(**settings):
    """The method in float64 and a batch of scattered rows."""
    task = small_task(side=8)
    batch = small_batch(ps_kd.PSKD, task, rows=len(ROWS))
    batch = batch._replace(images=batch.images.double(), index=torch.tensor(ROWS))
    return small_method(ps_kd.PSKD, task, **settings).double(), batch


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("settings", [{}, {"alpha": 0.35}], ids=str)
def test_it_agrees_with_the_reference(settings, progress):
    method, batch = made(**settings)
    past = [None if i in (1, 4) else torch.rand(CLASSES).double().softmax(dim=0) for i in range(len(ROWS))]
    for row, said in zip(ROWS, past, strict=True):
        method.past[row] = 0 if said is None else said
    step = method(batch, torch.tensor(progress, dtype=torch.float64))
    share = settings.get("alpha", 0.8) * progress
    expected = slow.ps_kd_loss(
        step.logits.tolist(), batch.target.tolist(), [None if p is None else p.tolist() for p in past], share
    )
    assert step.losses.keys() == {"task"}
    assert step.loss.item() == pytest.approx(expected, rel=1e-9)


def test_the_past_is_a_constant_in_the_gradient():
    method, batch = made()
    method(batch)
    past = method.past[batch.index]
    step = method(batch, 0.5)
    (gradient,) = torch.autograd.grad(step.loss, step.logits)
    target = 0.6 * F.one_hot(batch.target, CLASSES) + 0.4 * past
    torch.testing.assert_close(gradient, (step.logits.softmax(dim=1) - target) / len(ROWS))
    assert not method.past.requires_grad


def test_the_first_epoch_is_trained_on_labels_alone_whatever_the_progress():
    method, batch = made()
    for rows, progress in (([0, 1, 2, 3, 4, 5], 0.0), ([6, 7, 8, 9, 10, 11], 0.9)):
        step = method(batch._replace(index=torch.tensor(rows)), progress)
        torch.testing.assert_close(step.loss, F.cross_entropy(step.logits, batch.target))


def test_it_remembers_what_it_said_of_each_row_and_of_no_other():
    method, batch = made()
    said = method(batch).logits.softmax(dim=1)
    assert torch.equal(method.past[ROWS], said)
    others = [row for row in range(method.task.num_examples) if row not in ROWS]
    assert not method.past[others].count_nonzero()
    last = batch._replace(images=2 * batch.images[:2], target=batch.target[:2], index=batch.index[:2])
    again = method(last).logits.softmax(dim=1)
    assert torch.equal(method.past[ROWS], torch.cat([again, said[2:]]))


def test_rows_of_other_processes_are_written_too(monkeypatch):
    method, batch = made()
    elsewhere = {torch.int64: torch.tensor([1, 2]), torch.float64: torch.eye(CLASSES, dtype=torch.float64)[:2]}
    monkeypatch.setattr(ps_kd, "gather_rows", lambda rows: torch.cat([elsewhere[rows.dtype], rows.detach()]))
    said = method(batch).logits.softmax(dim=1)
    assert torch.equal(method.past[[1, 2, *ROWS]], torch.cat([elsewhere[torch.float64], said]))


def test_what_is_kept_from_being_sent_at_every_step_is_the_table():
    method, _ = made()
    assert method._ddp_params_and_buffers_to_ignore == [
        name for name, _ in method.named_buffers() if not name.startswith("student.")
    ]


def test_bfloat16_scores_are_remembered_in_single_precision():
    method, batch = made()
    method, batch = method.float(), batch._replace(images=batch.images.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        method(batch)
    assert method.past.dtype == torch.float32
    torch.testing.assert_close(method.past[ROWS].sum(dim=1), torch.ones(len(ROWS)), rtol=0, atol=1e-6)


def test_each_of_several_labels_has_its_own_past():
    task = small_task("multilabel", side=8)
    batch = small_batch(ps_kd.PSKD, task, rows=len(ROWS))
    target = batch.target.clone()
    target[2, 1] = -100
    batch = batch._replace(images=batch.images.double(), target=target, index=torch.tensor(ROWS))
    method = small_method(ps_kd.PSKD, task).double()
    first = method(batch, 0.5)
    torch.testing.assert_close(first.loss, task.loss(first.logits, target))
    past = method.past[batch.index]
    torch.testing.assert_close(past, first.logits.sigmoid())
    step = method(batch, 0.5)
    soft = 0.6 * target + 0.4 * past
    costs = F.binary_cross_entropy_with_logits(step.logits, soft, reduction="none")
    torch.testing.assert_close(step.loss, CLASSES * costs[target >= 0].mean())
