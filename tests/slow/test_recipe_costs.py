"""The parameters that recipes tell are those of the networks that they build."""

import functools
import re
from typing import Any

import pytest
import torch

from helpers.recipes import CLASSES, PAPER, name_of, recipe_of
from selfdistill import Task
from selfdistill.config.header import read_header
from selfdistill.config.read import read
from selfdistill.methods import create_method, find_method
from selfdistill.models import build_student

pytestmark = pytest.mark.slow

BRANCHES = {  # of HSAKD, with the authors' number of parameters behind each of their students
    "cifar:wrn-16-2": 1_928_304,
    "cifar:wrn-40-1": 1_484_432,
    "cifar:wrn-40-2": 5_769_328,
    "cifar:resnet20": 762_992,
    "cifar:resnet56": 2_206_064,
    "cifar:resnet8x4": 3_557_296,
    "cifar:resnet32x4": 18_907_056,
    "cifar:vgg13": 37_049_664,
    "cifar:mobilenetv2": 4_671_496,
    "cifar:shufflenetv1": 3_118_740,
    "cifar:shufflenetv2": 4_519_988,
    "cifar:resnet50": 76_976_704,
    "torchvision:resnet18": 47_555_456,
    "torchvision:resnet34": 76_474_240,
}
HSAKD = [path for path in PAPER if recipe_of(path).method.name.startswith("hsakd")]


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def build(task: Task, name: str, **options: Any) -> torch.nn.Module:
    given = {"num_classes": task.num_classes, "image_shape": task.image_shape, "output": task.output}
    return build_student(name, **given, **options)


@functools.cache
def small_teacher(method: str, task: Task) -> torch.nn.Module:
    """A trained method that teaches others, whose parameters do not depend on it: the smallest will do."""
    return create_method(method, build(task, "cifar:resnet8"), task)


@pytest.mark.parametrize("path", PAPER, ids=name_of)
def test_the_parameters_it_tells_are_those_of_its_networks(path):
    recipe, kind = recipe_of(path), find_method(recipe_of(path).method.name)
    side = 16 if recipe.student.name.startswith("cifar:") else 32  # the number of parameters is that of any size
    if recipe.task.kind == "segmentation" or (kind.whole_stages and path.parent.name == "imagenet"):
        side = 64
    task = Task(recipe.task.kind, CLASSES[path.parent.name], (3, side, side), num_examples=2)
    student, teacher = build(task, recipe.student.name, **recipe.student.options), None
    if kind.teacher_method:
        teacher = small_teacher(kind.teacher_method, task)
    elif kind.needs_teacher:
        teacher = build(task, recipe.student.name, **recipe.student.options)
    method = create_method(recipe.method.name, student, task, teacher=teacher, **recipe.method.hyperparameters)
    plain = count(method.student)
    extra = count(method) - plain - (0 if teacher is None else count(method.teacher))
    told = read_counts(path)
    if (taught := teacher_of(path)) in told and taught != plain:
        told.remove(taught)
    assert plain in told
    assert sum(told) == plain + extra


def teacher_of(path):
    """Parameters of the network that the command of the header's line Teacher trains; None where there is none."""
    if "Teacher" not in read_header(path):
        return None
    _, _, file, *words = read_header(path)["Teacher"].split()
    name = read(file, words).student.name
    return count(build_student(name, num_classes=CLASSES[path.parent.name], image_shape=(3, 32, 32)))


def read_counts(path):
    """The large numbers in the header's line Cost."""
    return [int(number.replace(",", "")) for number in re.findall(r"\d+(?:,\d{3})+", read_header(path)["Cost"])]


@pytest.mark.parametrize("path", HSAKD, ids=name_of)
def test_recipes_of_hsakd_tell_the_authors_number_of_parameters(path):
    assert BRANCHES[recipe_of(path).student.name] in read_counts(path)


def test_every_student_of_hsakd_has_a_recipe():
    assert {recipe_of(path).student.name for path in HSAKD} == BRANCHES.keys()
