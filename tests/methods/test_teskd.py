"""The branches on a top-down pyramid that learn from the student, against the slow reference."""

import numpy as np
import pytest
import torch

from helpers.batches import small_batch, small_task
from helpers.methods import settled_in_double, small_method
from helpers.networks import small_student
from reference import topdown as slow
from reference.frskd import Weights
from selfdistill import create_method
from selfdistill.methods import find_method
from selfdistill.methods.teskd import active_difference
from selfdistill.modules.fpn import TopDown

WEIGHTS = ("ce_weight", "kd_weight", "feature_weight", "temperature")


def made(side=8, padding=1, **settings):
    """The method in float64, its norms away from where they start, and a batch."""
    kind, task = find_method("teskd"), small_task(side=side)
    method = settled_in_double(small_method(kind, task, student=small_student(task, padding=padding), **settings))
    batch = small_batch(kind, task, rows=5)
    return method, batch._replace(images=batch.images.double())


def weights(module):
    return Weights({name: value.numpy() for name, value in module.state_dict().items()})


def expected_terms(method, batch, patches):
    with torch.no_grad():
        logits, features = method.taps(batch.images)
    features = [each.numpy() for each in features]
    pyramid, branches = weights(method.pyramid), weights(method.branches)
    fused = slow.top_down(features, pyramid, top_lateral=True)
    pairs = [slow.branch(each, branches / str(i), patches[i]) for i, each in enumerate(fused)]
    assert pyramid.all_read() and branches.all_read()
    settings = {name: getattr(method, name) for name in WEIGHTS}
    return slow.teskd(logits.numpy(), features[-1], pairs, batch.target.tolist(), **settings)


def agree(losses, expected):
    assert losses.keys() == expected.keys()
    for term, value in losses.items():
        np.testing.assert_allclose(value.item(), expected[term], rtol=1e-9, err_msg=term)


@pytest.mark.parametrize(
    ("settings", "patches"),
    [
        ({}, [(4, 4), (2, 2)]),
        ({"ce_weight": 1.0, "kd_weight": 0.3, "feature_weight": 0.1, "temperature": 2.0}, [(4, 4), (2, 2)]),
        ({"side": 11, "padding": 0}, [(5, 5), (2, 2)]),  # maps of 11, 5 and 2
    ],
    ids=str,
)
def test_teskd_agrees_with_the_reference(settings, patches):
    method, batch = made(**settings)
    agree(method(batch).losses, expected_terms(method, batch, patches))


@pytest.mark.parametrize(("setting", "term"), [("kd_weight", "kd"), ("feature_weight", "feature")])
def test_a_term_that_weighs_nothing_is_not_there(setting, term):
    method, batch = made(**{setting: 0.0})
    expected = expected_terms(method, batch, [(4, 4), (2, 2)])
    del expected[term]
    agree(method(batch).losses, expected)


def test_maps_of_equal_size_are_not_resampled():
    pyramid = TopDown([3, 4, 5], 6).double()
    features = [torch.randn(2, channels, 3, 2, dtype=torch.float64) for channels in (3, 4, 5)]
    expected = slow.top_down([each.numpy() for each in features], weights(pyramid), top_lateral=True)
    for ours, theirs in zip(pyramid(features), expected, strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=1e-9)


@pytest.mark.parametrize("term", ["kd", "feature"])
def test_the_student_is_a_constant_teacher_that_the_branches_improve(term):
    method, batch = made()
    method(batch).losses[term].backward()
    assert all(p.grad is None for p in method.student.fc.parameters())
    stages = [method.student.stem, method.student.stage1, method.student.stage2, method.student.stage3]
    assert all(p.grad.count_nonzero() for stage in stages for p in stage.parameters())
    convolutions = [p for branch in method.branches for p in branch.layers.parameters()]
    assert all(p.grad.count_nonzero() for p in [*method.pyramid.parameters(), *convolutions])


def test_the_students_own_classifier_learns_from_labels_alone():
    method, batch = made()
    for term, value in method(batch).losses.items():
        (gradient,) = torch.autograd.grad(value, [method.student.fc.weight], retain_graph=True, allow_unused=True)
        assert (gradient is not None) == (term == "task"), term


def test_feature_loss_counts_where_either_side_is_active_and_moves_one_of_them():
    own = torch.tensor([[1.0, -1.0, -2.0, 0.0]], requires_grad=True)
    aim = torch.tensor([[-1.0, 3.0, -5.0, 0.0]], requires_grad=True)
    loss = active_difference(own, aim)
    loss.backward()
    assert loss.item() == 4 + 16
    assert own.grad.tolist() == [[4.0, -8.0, 0.0, 0.0]] and aim.grad is None


def test_feature_loss_does_not_depend_on_how_many_images_there_are():
    own, aim = torch.randn(3, 4), torch.randn(3, 4)
    torch.testing.assert_close(active_difference(own, aim), active_difference(own.repeat(2, 1), aim.repeat(2, 1)))


def test_width_is_free_without_the_feature_loss():
    method, batch = made(width=6, feature_weight=0.0)
    assert all(branch.fc.in_features == 6 for branch in method.branches)
    expected = expected_terms(method, batch, [(4, 4), (2, 2)])
    agree(method(batch).losses, {term: expected[term] for term in ("task", "branches", "kd")})


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"width": 6}, "width=6 cannot be compared .* of 16 channels; choose width=16, or feature_weight=0"),
        ({"kd_weight": 0.0, "temperature": 2.0}, "TESKD: temperature=2.0 has no effect with kd_weight=0"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        made(**settings)


def test_a_student_with_a_single_map_is_refused():
    task = small_task()
    with pytest.raises(ValueError, match="single feature map"):
        create_method("teskd", small_student(task), task, taps=["stage3"])
