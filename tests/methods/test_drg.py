"""The early classifier that teaches the student, against the slow reference."""

import numpy as np
import pytest
import torch

from helpers.batches import small_batch, small_task
from helpers.methods import small_method
from helpers.networks import small_student
from reference import lightskd as slow
from selfdistill import create_method
from selfdistill.methods import find_method


def made(**settings):
    kind, task = find_method("drg"), small_task(side=8)
    method, batch = small_method(kind, task, **settings).double(), small_batch(kind, task, rows=5)
    return method, batch._replace(images=batch.images.double())


def expected_terms(method, batch):
    with torch.no_grad():
        logits, features = method.taps(batch.images)
        early_logits, _ = method.early_exit(features[method.level - 1])
    settings = {"alpha": method.alpha, "temperature": method.temperature}
    return slow.drg(logits.numpy(), early_logits.numpy(), batch.target.tolist(), **settings)


def agree(losses, expected):
    assert losses.keys() == expected.keys()
    for term, value in losses.items():
        np.testing.assert_allclose(value.item(), expected[term], rtol=1e-9, err_msg=term)


@pytest.mark.parametrize("settings", [{}, {"alpha": 1.5, "temperature": 2.0}, {"level": 1}], ids=str)
def test_drg_agrees_with_the_reference(settings):
    method, batch = made(**settings)
    agree(method(batch).losses, expected_terms(method, batch))


def test_soft_labels_that_weigh_nothing_are_not_there():
    method, batch = made(alpha=0.0)
    expected = expected_terms(method, batch)
    del expected["kd"]
    agree(method(batch).losses, expected)


def test_soft_labels_teach_the_whole_student_and_not_their_teacher():
    method, batch = made()
    method(batch).losses["kd"].backward()
    assert all(p.grad.count_nonzero() for p in method.student.parameters())
    assert all(p.grad is None for p in method.early_exit.parameters())


def test_the_classifier_learns_from_labels_and_takes_the_early_stages_along():
    method, batch = made()
    method(batch).losses["exit"].backward()
    assert all(p.grad.count_nonzero() for p in method.early_exit.parameters())
    early = [method.student.stem, method.student.stage1, method.student.stage2]
    assert all(p.grad.count_nonzero() for stage in early for p in stage.parameters())
    assert all(p.grad is None for stage in (method.student.stage3, method.student.fc) for p in stage.parameters())


def test_the_classifier_reads_the_second_map_through_a_gate_unless_told_otherwise():
    for settings, channels in (({}, 12), ({"level": 1}, 8)):
        method, _ = made(**settings)
        assert method.early_exit.gate.block[0].in_channels == channels
        assert method.early_exit.fc.in_features == 16


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"level": 3}, "level=3 is not before the student's deepest of 3 feature maps; choose level=2 or less"),
        ({"alpha": 0.0, "temperature": 2.0}, "DRG: temperature=2.0 has no effect with alpha=0"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        made(**settings)


def test_a_student_with_a_single_map_is_refused():
    task = small_task()
    with pytest.raises(ValueError, match="single feature map"):
        create_method("drg", small_student(task), task, taps=["stage3"])
