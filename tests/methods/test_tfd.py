"""TFD against the slow reference, and who learns from whom."""

import pytest
import torch
import torch.nn.functional as F

from helpers.batches import small_batch, small_task
from helpers.methods import small_method
from helpers.networks import small_student
from helpers.replay import SHAPES, agree, arrays, every_shape, replayed
from reference import tfd as slow
from selfdistill import create_method
from selfdistill.methods import find_method
from selfdistill.methods.tfd import at_one_size, imitation


@every_shape
def test_tfd_agrees_with_the_reference(shapes):
    method, batch = replayed("tfd", shapes, alpha=0.7, epsilon=0.2)
    expected = slow.tfd_terms(*arrays(method), batch.target.tolist(), alpha=0.7, epsilon=0.2)
    agree(method(batch).losses, expected)


def test_tfd_of_a_network_agrees_with_the_reference():
    kind, task = find_method("tfd"), small_task(side=8)
    method, batch = small_method(kind, task).double(), small_batch(kind, task, rows=5)
    batch = batch._replace(images=batch.images.double())
    with torch.no_grad():
        logits, features = method.taps(batch.images)
    features = [feature.numpy() for feature in features]
    expected = slow.tfd_terms(logits.numpy(), features, batch.target.tolist(), alpha=0.005, epsilon=0.0)
    agree(method(batch).losses, expected)


@every_shape
def test_only_the_shallower_map_of_a_pair_learns(shapes):
    method, batch = replayed("tfd", shapes)
    method(batch).losses["inter"].backward()
    *shallow, deepest = [stage.value.grad for stage in method.student.stages]
    assert all(grad.count_nonzero() for grad in shallow)
    assert deepest is None and method.student.scores.grad is None


def test_gradient_of_a_pair_pulls_each_pixel_by_its_share_of_a_window():
    method, batch = replayed("tfd", ([(3, 4, 4), (5, 2, 2)], (4, 4)), alpha=1.0)
    method(batch).losses["inter"].backward()
    shallow, deep = (stage.value.detach() for stage in method.student.stages)
    gap = F.avg_pool2d(shallow, 2) - deep[:, :3]
    expected = (2 * gap / gap.numel() / 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(method.student.stages[0].value.grad, expected)


def test_a_map_that_equals_its_deeper_one_where_they_compare_has_nothing_to_learn():
    deep = torch.rand(2, 5, 3, 3)
    shallow = deep[:, :2].repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert imitation(shallow, deep).item() < 1e-12
    assert imitation(shallow, deep.flip(1)) > 1e-3  # the first channels, in their order


def test_maps_meet_at_the_smaller_height_and_the_smaller_width():
    one, other = at_one_size(torch.rand(2, 3, 8, 2), torch.rand(2, 5, 4, 6))
    assert one.shape == (2, 3, 4, 2) and other.shape == (2, 5, 4, 2)
    same = torch.rand(2, 3, 4, 4)
    assert all(torch.equal(each, same) for each in at_one_size(same, same))


def test_label_smoothing_concerns_the_labels_alone():
    steps = [replayed_twice(epsilon) for epsilon in (0.0, 0.1)]
    torch.testing.assert_close(steps[0]["inter"], steps[1]["inter"])
    assert steps[1]["task"] != steps[0]["task"]


def replayed_twice(epsilon):
    torch.manual_seed(0)
    method, batch = replayed("tfd", SHAPES["halving"], epsilon=epsilon)
    return method(batch).losses


def test_without_smoothing_the_task_is_plain_cross_entropy():
    method, batch = replayed("tfd", SHAPES["halving"])
    torch.testing.assert_close(method(batch).losses["task"], F.cross_entropy(method.student.scores, batch.target))


@pytest.mark.parametrize(("name", "title"), [("tfd", "TFD"), ("tf_fd", "TfFD"), ("sad", "SAD")])
def test_a_single_map_is_refused(name, title):
    with pytest.raises(ValueError, match=rf"{title} lets maps learn .* at least 2 .* has 1 \(12 channels\)"):
        create_method(name, small_student(small_task()), small_task(), taps=["stage2"])


@pytest.mark.parametrize("name", ["tfd", "tf_fd", "sad"])
def test_half_precision_moves_the_terms_only_as_far_as_the_maps(name):
    kind, task = find_method(name), small_task()
    method, batch = small_method(kind, task), small_batch(kind, task)
    plain = method(batch, torch.tensor(0.9)).losses
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = method(batch, torch.tensor(0.9)).losses
    for term, value in plain.items():
        torch.testing.assert_close(half[term], value, rtol=0.1, atol=1e-6)
