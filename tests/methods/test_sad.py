"""Self attention distillation against the slow reference."""

import pytest
import torch
import torch.nn.functional as F

from helpers.batches import small_batch, small_task
from helpers.methods import small_method
from helpers.replay import SHAPES, agree, arrays, every_shape, replayed
from reference.at_sad import sad_loss
from reference.frskd import cross_entropy
from selfdistill.methods import find_method
from selfdistill.methods.sad import attention_distance

AWAKE = 0.9


@every_shape
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_sad_agrees_with_the_reference(shapes, reduction):
    method, batch = replayed("sad", shapes, weight=0.3, reduction=reduction)
    logits, features = arrays(method)
    expected = {
        "task": cross_entropy(logits, batch.target.tolist()),
        "attention": 0.3 * sad_loss(features, reduction),
    }
    agree(method(batch, AWAKE).losses, expected)


def test_sad_of_a_network_agrees_with_the_reference():
    kind, task = find_method("sad"), small_task(side=8)
    method, batch = small_method(kind, task).double(), small_batch(kind, task, rows=5)
    batch = batch._replace(images=batch.images.double())
    with torch.no_grad():
        logits, features = method.taps(batch.images)
    expected = {
        "task": cross_entropy(logits.numpy(), batch.target.tolist()),
        "attention": 0.1 * sad_loss([feature.numpy() for feature in features], "sum"),
    }
    agree(method(batch, AWAKE).losses, expected)


@every_shape
def test_every_map_but_the_deepest_learns(shapes):
    method, batch = replayed("sad", shapes)
    method(batch, AWAKE).losses["attention"].backward()
    *shallow, deepest = [stage.value.grad for stage in method.student.stages]
    assert all(grad.count_nonzero() for grad in shallow)
    assert deepest is None and method.student.scores.grad is None


@pytest.mark.parametrize(("progress", "weight"), [(0.0, 0), (0.39, 0), (0.4, 1), (0.99, 1)])
def test_attention_counts_from_the_end_of_the_warmup_on(progress, weight):
    method, batch = replayed("sad", SHAPES["halving"], warmup=0.4)
    full = method(batch, torch.tensor(1.0)).losses
    now = method(batch, torch.tensor(progress)).losses
    torch.testing.assert_close(now["task"], full["task"])
    assert full["attention"] > 0
    torch.testing.assert_close(now["attention"], weight * full["attention"])


def test_the_two_reductions_differ_by_the_number_of_positions():
    one, other = torch.rand(2, 3, 8, 8), torch.rand(2, 5, 4, 4)
    torch.testing.assert_close(attention_distance(one, other, "sum"), 64 * attention_distance(one, other, "mean"))


def test_distance_is_zero_between_equal_maps_and_at_most_two():
    feature = torch.rand(2, 3, 4, 4)
    assert attention_distance(feature, feature.flip(1), "sum") < 1e-12
    apart = torch.zeros(2, 1, 4, 4)
    apart[:, :, 0, 0] = 30.0
    assert attention_distance(apart, apart.flip(2), "sum").item() == pytest.approx(2.0)


def test_a_deeper_map_is_compared_at_the_size_of_the_shallower():
    coarse = torch.rand(2, 3, 4, 4)
    energy = F.interpolate(coarse.pow(2).sum(dim=1, keepdim=True), size=(8, 8), mode="bilinear", align_corners=False)
    assert attention_distance(energy.sqrt(), coarse, "sum") < 1e-12


def test_a_warmup_of_all_training_is_refused():
    with pytest.raises(ValueError, match="warmup=1.0 leaves SAD's only term no share of training; method=baseline"):
        replayed("sad", SHAPES["halving"], warmup=1.0)
