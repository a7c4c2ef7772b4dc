"""Frozen teachers, looked at once before training."""

import pytest
import torch

from helpers.batches import small_task
from helpers.networks import small_student
from selfdistill import create_method


@pytest.mark.parametrize("name", ["kd", "kd_tf_fd"])
def test_a_teacher_that_does_not_run_on_the_images_is_refused(name):
    task = small_task().replace(image_shape=(1, 16, 16))
    student = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 1), small_student(small_task()))
    with pytest.raises(ValueError, match="SmallResNet does not run on 1x16x16 images"):
        create_method(name, student, task, teacher=small_student(small_task()))


def test_looking_at_the_teacher_leaves_its_statistics_alone():
    task, teacher = small_task(), small_student(small_task())
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    create_method("kd", small_student(task), task, teacher=teacher)
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
