"""Micro-batches of one process share what a whole batch would have: mixed images, and the weight of a labeled pixel.

The same for two processes is in `tests/slow/test_same_experiment.py`.
"""

import pytest
import torch

from helpers.batches import small_task
from selfdistill.losses import cross_entropy
from selfdistill.task import Batch, Step
from selfdistill.training.sharing import mix_whole_batch, weigh_by_labels, weigh_terms

SIZES = [2, 3, 3]


@pytest.fixture
def masks():
    """Scores and masks of eight images, of which later ones have fewer labeled pixels."""
    logits, target = torch.randn(8, 3, 4, 4, dtype=torch.float64), torch.randint(3, (8, 4, 4))
    target[torch.arange(16).view(4, 4).expand(8, 4, 4) < 2 * torch.arange(8)[:, None, None]] = -100
    return logits, target


def test_means_over_labeled_pixels_add_up_to_that_of_the_whole_batch(masks):
    logits, target = masks
    batches = [Batch(images, labels) for images, labels in zip(logits.split(SIZES), target.split(SIZES), strict=True)]
    weights = weigh_by_labels(batches, [SIZES], small_task("segmentation"))
    total = 0.0
    for batch, weight in zip(batches, weights, strict=True):
        terms = {"task": cross_entropy(batch.images, batch.target), "map": batch.images.mean()}
        step = weigh_terms(Step(terms, batch.images), weight, ["map"])
        total += step.loss * len(batch.images) / 8
    assert total.item() == pytest.approx((cross_entropy(logits, target) + logits.mean()).item(), rel=1e-12)


def test_a_batch_without_labels_weighs_nothing_and_one_in_a_piece_or_of_images_as_it_is():
    void = Batch(torch.zeros(2, 3, 4, 4), torch.full((2, 4, 4), -100))
    segmentation, classification = small_task("segmentation"), small_task("classification")
    assert [float(weight) for weight in weigh_by_labels([void, void], [[2, 2]], segmentation)] == [0, 0]
    assert weigh_by_labels([void], [[2]], segmentation) == [None]
    images = Batch(torch.zeros(2, 3, 4, 4), torch.zeros(2, dtype=torch.int64))
    assert weigh_by_labels([images, images], [[2, 2]], classification) == [None, None]


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
