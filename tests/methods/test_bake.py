"""BAKE: its soft labels against the slow reference, and over which rows they spread."""

import pytest
import torch

from helpers.batches import small_batch, small_task
from helpers.expected_terms import EXPECTED, Outputs
from helpers.methods import agree, small_method
from helpers.networks import CLASSES
from reference import consistency as slow
from selfdistill.methods import bake
from selfdistill.methods.bake import BAKE, ensemble_labels


class OnePositive(BAKE):
    """What TinyImageNet and others were trained with."""

    positives = 1


def made(kind=BAKE, **settings):
    """The method in float64 and a batch."""
    task = small_task(side=8)
    batch = small_batch(kind, task, rows=3)
    batch = batch._replace(images=batch.images.double(), positives=batch.positives.double())
    return small_method(kind, task, **settings).double(), batch


def everything(batch):
    """Images and labels of all rows: first the images, then the positives of each in turn."""
    positives = [positive for row in batch.positives for positive in row]
    labels = [label for label, row in zip(batch.target.tolist(), batch.positives, strict=True) for _ in row]
    return torch.stack([*batch.images, *positives]), batch.target.tolist() + labels


@pytest.mark.parametrize("kind", [BAKE, OnePositive])
def test_it_agrees_with_the_reference(kind):
    method, batch = made(kind, omega=0.9)
    agree(method(batch).losses, EXPECTED["bake"](method, Outputs(method, batch)))


def drawn(rows=7):
    return torch.randn(rows, 4).double().abs(), torch.randn(rows, CLASSES).double()


@pytest.mark.parametrize("omega", [0.01, 0.5, 0.99])
def test_soft_labels_are_probabilities_and_do_not_depend_on_the_order_of_the_rows(omega):
    features, logits = drawn()
    labels = ensemble_labels(features, logits, omega=omega, temperature=4.0)
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(7).double())
    assert labels.min() > 0
    order = torch.randperm(7)
    torch.testing.assert_close(
        ensemble_labels(features[order], logits[order], omega=omega, temperature=4.0), labels[order]
    )


def test_rows_that_all_agree_keep_what_they_say():
    features, logits = drawn()
    logits = logits[:1].expand(7, -1)
    labels = ensemble_labels(features, logits, omega=0.5, temperature=2.0)
    torch.testing.assert_close(labels, (logits / 2).softmax(dim=1))


def test_soft_labels_are_constants():
    method, batch = made()
    logits, maps = method.taps(everything(batch)[0])
    targets = ensemble_labels(maps[-1].mean(dim=(2, 3)), logits, omega=0.5, temperature=4.0)
    (gradient,) = torch.autograd.grad(method(batch).losses["kd"], method.student.fc.bias)
    torch.testing.assert_close(gradient, 4 * ((logits / 4).softmax(dim=1) - targets).mean(dim=0))
    features, logits = (each.requires_grad_() for each in drawn())
    assert not ensemble_labels(features, logits, omega=0.5, temperature=4.0).requires_grad


def test_soft_labels_spread_over_the_rows_of_all_processes(monkeypatch):
    method, batch = made()
    elsewhere = {width: torch.rand(4, width, dtype=torch.float64) for width in (CLASSES, 16)}
    monkeypatch.setattr(bake, "gather_rows", lambda rows: torch.cat([elsewhere[rows.shape[1]], rows.detach()]))
    monkeypatch.setattr(bake, "local_rows", lambda rows: rows[4:])
    logits, features = method.taps(everything(batch)[0])
    pooled = torch.cat([elsewhere[16], features[-1].mean(dim=(2, 3))])
    targets = ensemble_labels(pooled, torch.cat([elsewhere[CLASSES], logits]), omega=0.5, temperature=4.0)[4:]
    expected = slow.divergence(logits.tolist(), targets.tolist(), 4.0)
    assert method(batch).losses["kd"].item() == pytest.approx(expected, rel=1e-9)


def test_half_precision_spreads_in_single():
    features, logits = (each.to(torch.bfloat16) for each in drawn())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        labels = ensemble_labels(features, logits, omega=0.9, temperature=4.0)
    assert labels.dtype == torch.float32
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(7), rtol=0, atol=1e-5)
