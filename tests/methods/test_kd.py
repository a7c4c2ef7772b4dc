"""Soft labels of a frozen teacher, against the slow reference."""

import pytest
import torch
import torch.nn.functional as F

from helpers.batches import small_batch, small_task
from helpers.methods import small_method
from helpers.networks import CLASSES, small_student
from helpers.replay import agree
from reference.frskd import cross_entropy, soft_label_loss
from selfdistill import create_method
from selfdistill.methods import find_method

KINDS = ["kd", "kd_tf_fd"]


def made(name="kd", **settings):
    kind, task = find_method(name), small_task(side=8)
    method, batch = small_method(kind, task, **settings).double(), small_batch(kind, task, rows=5)
    return method, batch._replace(images=batch.images.double())


@pytest.mark.parametrize("settings", [{}, {"alpha": 1.0, "beta": 0.4, "temperature": 2.0}, {"alpha": 0.0}], ids=str)
def test_kd_agrees_with_the_reference(settings):
    method, batch = made(**settings)
    with torch.no_grad():
        logits = method.student(batch.images).numpy()
        teacher_logits = method.teacher.net.eval()(batch.images).numpy()
    expected = {
        "task": settings.get("alpha", 0.1) * cross_entropy(logits, batch.target.tolist()),
        "kd": settings.get("beta", 0.9) * soft_label_loss(logits, teacher_logits, settings.get("temperature", 4.0)),
    }
    agree(method(batch).losses, expected)


@pytest.mark.parametrize("name", KINDS)
def test_soft_labels_teach_the_whole_student_and_the_teacher_nothing(name):
    method, batch = made(name)
    method(batch).losses["kd"].backward()
    assert all(p.grad.count_nonzero() for p in method.student.parameters())
    assert all(p.grad is None for p in method.teacher.parameters())


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_it():
    task = small_task()
    student = small_student(task).eval()
    method = create_method("kd", student, task, teacher=small_student(task))
    batch = small_batch(find_method("kd"), task)
    assert method(batch).losses["kd"].item() == pytest.approx(0, abs=1e-6)


def test_mixed_labels_mix_the_cross_entropy_and_leave_the_soft_labels_alone():
    method, batch = made()
    first, second = F.one_hot(batch.target, CLASSES).double(), F.one_hot(batch.target.flip(0), CLASSES).double()
    mixed = method(batch._replace(soft_target=0.3 * first + 0.7 * second)).losses
    ends = [method(batch._replace(target=target)).losses for target in (batch.target, batch.target.flip(0))]
    torch.testing.assert_close(mixed["task"], 0.3 * ends[0]["task"] + 0.7 * ends[1]["task"])
    torch.testing.assert_close(mixed["kd"], ends[0]["kd"])


@pytest.mark.parametrize("name", KINDS)
def test_a_teacher_of_other_classes_is_refused(name):
    task, other = small_task(), small_task()._replace(num_classes=CLASSES + 2)
    with pytest.raises(ValueError, match=f"the teacher scores 7 classes and the task has 5; give {title(name)} a"):
        create_method(name, small_student(task), task, teacher=small_student(other))


def title(name):
    return find_method(name).__name__


@pytest.mark.parametrize("name", KINDS)
def test_a_teacher_that_does_not_run_on_the_images_is_refused(name):
    task = small_task()._replace(image_shape=(1, 16, 16))
    student = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 1), small_student(small_task()))
    with pytest.raises(ValueError, match="SmallResNet does not run on 1x16x16 images"):
        create_method(name, student, task, teacher=small_student(small_task()))


def test_looking_at_the_teacher_leaves_its_statistics_alone():
    task, teacher = small_task(), small_student(small_task())
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    create_method("kd", small_student(task), task, teacher=teacher)
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
