"""Micro-batches of one process share what a whole batch would have: mixed images, and the weight of a labeled pixel.

The same for two processes is in `tests/slow/test_same_experiment.py`.
"""

import pytest
import torch
from torch import nn

from helpers.networks import small_student
from selfdistill import Task, create_method
from selfdistill.losses import cross_entropy
from selfdistill.task import Batch, Step
from selfdistill.training.sharing import LabelDensity, mix_whole_batch, weigh_by_labels, weigh_terms

SIZES = [2, 3, 3]


def task(kind, **settings):
    return Task(kind, 3, (3, 4, 4), **settings)


def method_of(task):
    """The baseline; "map" is a term over all pixels."""
    method = create_method("baseline", nn.Conv2d(3, 3, 1), task)
    method.unlabeled_terms = ("map",)
    return method


@pytest.fixture
def masks():
    """Scores and masks of eight images, of which later ones have fewer labeled pixels."""
    logits, target = torch.randn(8, 3, 4, 4, dtype=torch.float64), torch.randint(3, (8, 4, 4))
    target[torch.arange(16).view(4, 4).expand(8, 4, 4) < 2 * torch.arange(8)[:, None, None]] = -100
    return logits, target


def test_means_over_labeled_pixels_add_up_to_that_of_the_whole_batch(masks):
    logits, target = masks
    batches = [Batch(images, labels) for images, labels in zip(logits.split(SIZES), target.split(SIZES), strict=True)]
    method = method_of(task("segmentation"))
    total = 0.0
    for batch, density in zip(batches, weigh_by_labels(batches, [SIZES], method), strict=True):
        terms = {"task": cross_entropy(batch.images, batch.target), "map": batch.images.mean()}
        step = weigh_terms(Step(terms, batch.images), density, method)
        total += step.loss * len(batch.images) / 8
    assert total.item() == pytest.approx((cross_entropy(logits, target) + logits.mean()).item(), rel=1e-12)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "bce", "dice+cross_entropy"])
def test_weighted_losses_of_micro_batches_add_up_to_that_of_the_whole_batch(masks, loss):
    logits, target = masks
    method = method_of(task("segmentation", loss=loss, class_weights=[0.2, 1.0, 5.0], label_smoothing=0.1))
    batches = [Batch(images, labels) for images, labels in zip(logits.split(SIZES), target.split(SIZES), strict=True)]
    total = 0.0
    for batch, density in zip(batches, weigh_by_labels(batches, [SIZES], method), strict=True):
        terms = {"task": method.task.loss(batch.images, batch.target), "kd": cross_entropy(batch.images, batch.target)}
        total += weigh_terms(Step(terms, batch.images), density, method).loss * len(batch.images) / 8
    expected = method.task.loss(logits, target) + cross_entropy(logits, target)  # the second without class weights
    assert total.item() == pytest.approx(expected.item(), rel=1e-12)


def test_weighted_labels_of_images_add_up_and_mixed_ones_count_alike():
    logits, target = torch.randn(8, 3, dtype=torch.float64), torch.randint(3, (8,))
    method = method_of(task("classification", class_weights=[0.2, 1.0, 5.0]))
    batches = [Batch(images, labels) for images, labels in zip(logits.split(SIZES), target.split(SIZES), strict=True)]
    densities = weigh_by_labels(batches, [SIZES], method)
    terms = [
        weigh_terms(Step({"task": method.task.loss(*batch[:2])}, batch.images), density, method).loss * size / 8
        for batch, density, size in zip(batches, densities, SIZES, strict=True)
    ]
    torch.testing.assert_close(sum(terms), method.task.loss(logits, target))
    mixed = [batch._replace(soft_target=batch.images.softmax(dim=1)) for batch in batches]
    assert weigh_by_labels(mixed, [SIZES], method) == [LabelDensity()] * 3


@pytest.mark.parametrize("loss", ["bce", "asymmetric"])
def test_known_answers_of_images_add_up_and_features_count_by_images(loss):
    logits, features = torch.randn(2, 8, 3, dtype=torch.float64)
    target = torch.randint(2, (8, 3)).where(torch.rand(8, 3) < torch.linspace(0.1, 1, 8)[:, None], -100)
    method = create_method("drg", small_student(Task("multilabel", 3, (3, 16, 16))), Task("multilabel", 3, (3, 16, 16)))
    method.task = task("multilabel", loss=loss, class_weights=[0.2, 1.0, 5.0])

    def compute(logits, target, features):
        kd = method.task.distill(logits, features, 2.0, method.task.labeled_mask(target))
        return Step({"task": method.task.loss(logits, target), "kd": kd, "feature": features.mean()}, logits)

    parts = [values.split(SIZES) for values in (logits, target, features)]
    batches = [Batch(*rows) for rows in zip(*parts[:2], strict=True)]
    total = sum(
        weigh_terms(compute(*rows), density, method).loss * len(rows[0]) / 8
        for *rows, density in zip(*parts, weigh_by_labels(batches, [SIZES], method), strict=True)
    )
    torch.testing.assert_close(total, compute(logits, target, features).loss)


def test_a_batch_without_labels_weighs_nothing_and_one_in_a_piece_or_of_images_as_it_is():
    void = Batch(torch.zeros(2, 3, 4, 4), torch.full((2, 4, 4), -100))
    segmentation, classification = method_of(task("segmentation")), method_of(task("classification"))
    assert [float(density.labeled) for density in weigh_by_labels([void, void], [[2, 2]], segmentation)] == [0, 0]
    assert weigh_by_labels([void], [[2]], segmentation) == [LabelDensity()]
    images = Batch(torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64))
    assert weigh_by_labels([images, images], [[2, 2]], classification) == [LabelDensity()] * 2


def test_micro_batches_are_mixed_as_one_batch():
    def shift(batch):
        assert len(batch.images) == 8
        return batch._replace(images=batch.images.roll(1, 0), soft_target=batch.target.double()[:, None])

    images = torch.arange(8.0)[:, None, None, None]
    batches = [Batch(part, part.flatten().long(), index=part.flatten().long()) for part in images.split(SIZES)]
    mixed = mix_whole_batch(shift, batches, [SIZES], rank=0)
    assert [len(batch.images) for batch in mixed] == SIZES and all(batch.views is None for batch in mixed)
    assert torch.cat([batch.images for batch in mixed]).flatten().tolist() == [7, 0, 1, 2, 3, 4, 5, 6]
    assert torch.cat([batch.soft_target for batch in mixed]).flatten().tolist() == list(range(8))
    assert torch.cat([batch.index for batch in mixed]).tolist() == list(range(8))
