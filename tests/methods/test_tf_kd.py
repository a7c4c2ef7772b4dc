"""Self-training and the virtual teacher, against the slow reference."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from helpers.batches import small_batch, small_task
from helpers.methods import small_method
from helpers.networks import CLASSES, small_student
from reference import tf_kd as slow
from selfdistill import create_method
from selfdistill.methods import find_method


def made(name, **settings):
    kind, task = find_method(name), small_task(side=8)
    method, batch = small_method(kind, task, **settings).double(), small_batch(kind, task, rows=6)
    return method, batch._replace(images=batch.images.double())


def students(method, batch):
    with torch.no_grad():
        return method.student(batch.images).numpy()


def agree(losses, expected):
    assert losses.keys() == expected.keys()
    for term, value in losses.items():
        np.testing.assert_allclose(value.item(), expected[term], rtol=1e-9, err_msg=term)


def settings_of(method):
    return {name: getattr(method, name) for name in method.hyperparameters()}


@pytest.mark.parametrize(
    "settings", [{}, {"alpha": 0.3, "temperature": 2.0, "multiplier": 1.0}, {"alpha": 1.0}], ids=str
)
def test_self_training_agrees_with_the_reference(settings):
    method, batch = made("tf_kd_self", **settings)
    with torch.no_grad():
        teacher_logits = method.teacher.net(batch.images).numpy()
    logits, target = students(method, batch), batch.target.tolist()
    agree(method(batch).losses, slow.self_terms(logits, teacher_logits, target, **settings_of(method)))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"softens": "logits"},
        {"alpha": 0.4, "temperature": 3.0, "multiplier": 7.0, "correct": 0.8},
        {"temperature": 0.5, "correct": 0.7, "softens": "logits"},
    ],
    ids=str,
)
def test_virtual_teacher_agrees_with_the_reference(settings):
    method, batch = made("tf_kd_reg", **settings)
    logits, target = students(method, batch), batch.target.tolist()
    agree(method(batch).losses, slow.reg_terms(logits, target, **settings_of(method)))


def test_self_training_teaches_the_student_and_not_its_teacher():
    method, batch = made("tf_kd_self")
    method(batch).losses["kd"].backward()
    assert all(p.grad.count_nonzero() for p in method.student.parameters())
    assert all(p.grad is None for p in method.teacher.parameters())


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_it():
    task = small_task()
    method = create_method("tf_kd_self", small_student(task).eval(), task, teacher=small_student(task))
    batch = small_batch(find_method("tf_kd_self"), task)
    assert method(batch).losses["kd"].item() == pytest.approx(0, abs=1e-5)


def test_teacher_of_other_classes_is_refused():
    task = small_task()
    with pytest.raises(ValueError, match="scores 7 classes and the task has 5"):
        create_method("tf_kd_self", small_student(task), task, teacher=small_student(task._replace(num_classes=7)))


def test_published_virtual_teacher_is_nearly_uniform_and_softened_logits_less_so():
    ratios = {}
    for softens in ("probabilities", "logits"):
        method, _ = made("tf_kd_reg", softens=softens)
        (row,) = method.virtual_teacher(torch.tensor([2]), torch.float64)
        assert row.sum().item() == pytest.approx(1) and row.argmax() == 2
        ratios[softens] = (row[2] / row[0]).item()
    assert ratios["probabilities"] == pytest.approx(math.exp((0.99 - 0.0025) / 20))
    assert ratios["logits"] == pytest.approx((0.99 / 0.0025) ** (1 / 20))


def test_virtual_teacher_at_temperature_1_of_logits_is_label_smoothing_up_to_its_entropy():
    method, batch = made("tf_kd_reg", softens="logits", temperature=1.0, alpha=1.0, multiplier=float(CLASSES))
    smoothing, _ = made("label_smoothing", epsilon=0.01, share="others")
    entropy = -0.99 * math.log(0.99) - 0.01 * math.log(0.01 / (CLASSES - 1))
    expected = smoothing(batch).losses["task"] - entropy
    torch.testing.assert_close(method(batch).losses["reg"], expected)


def test_virtual_teacher_may_be_certain():
    for softens in ("probabilities", "logits"):
        method, batch = made("tf_kd_reg", softens=softens, correct=1.0)
        loss = method(batch).loss
        loss.backward()
        assert loss.isfinite() and all(p.grad.isfinite().all() for p in method.student.parameters())


@pytest.mark.parametrize(("name", "fixed"), [("tf_kd_self", "kd"), ("tf_kd_reg", None)])
def test_mixed_labels_mix_the_cross_entropy(name, fixed):
    method, batch = made(name)
    first, second = F.one_hot(batch.target, CLASSES).double(), F.one_hot(batch.target.flip(0), CLASSES).double()
    mixed = method(batch._replace(soft_target=0.3 * first + 0.7 * second)).losses
    ends = [method(batch._replace(target=target)).losses for target in (batch.target, batch.target.flip(0))]
    torch.testing.assert_close(mixed["task"], 0.3 * ends[0]["task"] + 0.7 * ends[1]["task"])
    if fixed:
        torch.testing.assert_close(mixed[fixed], ends[0][fixed])


def test_virtual_teacher_of_a_mixed_label_softens_the_mixture():
    method, _ = made("tf_kd_reg")
    soft_target = torch.tensor([[0.3, 0.0, 0.7, 0.0, 0.0]], dtype=torch.float64)
    (row,) = method.virtual_teacher(torch.tensor([2]), torch.float64, soft_target)
    mixture = torch.tensor([0.3 * 0.99 + 0.7 * 0.0025, 0.0025, 0.7 * 0.99 + 0.3 * 0.0025, 0.0025, 0.0025])
    torch.testing.assert_close(row, torch.softmax(mixture.double() / 20, dim=0), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("name", "settings", "sentence"),
    [
        ("tf_kd_self", {"alpha": 0.0, "multiplier": 1.0}, "multiplier=1.0 has no effect with alpha=0"),
        ("tf_kd_self", {"multiplier": 0.0, "temperature": 1.0}, "temperature=1.0 has no effect with multiplier=0"),
        ("tf_kd_reg", {"alpha": 0.0, "softens": "logits"}, "softens=logits has no effect with alpha=0"),
        ("tf_kd_reg", {"multiplier": 0.0, "correct": 0.9}, "correct=0.9 has no effect with multiplier=0"),
    ],
)
def test_a_setting_without_effect_is_refused(name, settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        made(name, **settings)
