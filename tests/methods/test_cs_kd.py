"""CS-KD: its terms against the slow reference, and who learns from whom."""

import pytest
import torch
import torch.nn.functional as F

from helpers.batches import small_batch, small_task
from helpers.methods import small_method
from helpers.networks import CLASSES
from reference.frskd import cross_entropy, soft_label_loss
from selfdistill.methods.cs_kd import CSKD


def made(**settings):
    """The method in float64 and a batch."""
    task = small_task(side=8)
    batch = small_batch(CSKD, task, rows=6)
    batch = batch._replace(images=batch.images.double(), positives=batch.positives.double())
    return small_method(CSKD, task, **settings).double(), batch


@pytest.mark.parametrize("settings", [{}, {"weight": 3.0, "temperature": 2.0}], ids=str)
def test_it_agrees_with_the_reference(settings):
    method, batch = made(**settings)
    with torch.no_grad():
        logits, positives = (method.student(each).tolist() for each in (batch.images, batch.positives[:, 0]))
    expected = {
        "task": cross_entropy(logits, batch.target.tolist()),
        "kd": method.weight * soft_label_loss(logits, positives, method.temperature),
    }
    losses = method(batch).losses
    assert {term: value.item() for term, value in losses.items()} == pytest.approx(expected, rel=1e-9)


def test_positives_teach_and_do_not_learn():
    method, batch = made()
    leaves = [each.requires_grad_() for each in (batch.images, batch.positives)]
    of_images, of_positives = torch.autograd.grad(method(batch).losses["kd"], leaves, allow_unused=True)
    assert of_images.count_nonzero() and of_positives is None


def test_an_image_that_is_its_own_positive_learns_nothing_from_it():
    method, batch = made()
    loss = method(batch._replace(positives=batch.images[:, None])).losses["kd"]
    assert loss.item() == pytest.approx(0, abs=1e-12)


def test_batch_norms_see_positives_apart_and_count_them():
    method, batch = made()
    method(batch)
    assert method.student.stem[1].num_batches_tracked == 2


def test_without_weight_no_positive_is_looked_at():
    method, batch = made(weight=0.0)
    assert method(batch).losses.keys() == {"task"}
    assert method.student.stem[1].num_batches_tracked == 1
    with pytest.raises(ValueError, match="CSKD: temperature=2.0 has no effect with weight=0"):
        made(weight=0.0, temperature=2.0)


def test_mixed_labels_are_refused():
    method, batch = made()
    with pytest.raises(ValueError, match="these labels are mixed; use mix=none"):
        method(batch._replace(soft_target=F.one_hot(batch.target, CLASSES).double()))
