"""HSAKD's branches have the authors' parameter counts behind every network of the paper."""

import pytest
import torch

from selfdistill import Task, create_method
from selfdistill.models import build_student

pytestmark = pytest.mark.slow

COUNTS = {  # network: parameters of the student, of its branches; 100 classes, ImageNet's 1000 for torchvision's
    "cifar:wrn-16-2": (703_284, 1_928_304),
    "cifar:wrn-40-1": (569_780, 1_484_432),
    "cifar:wrn-40-2": (2_255_156, 5_769_328),
    "cifar:resnet20": (278_324, 762_992),
    "cifar:resnet56": (861_620, 2_206_064),
    "cifar:resnet8x4": (1_233_540, 3_557_296),
    "cifar:resnet32x4": (7_433_860, 18_907_056),
    "cifar:vgg13": (9_462_180, 37_049_664),
    "cifar:mobilenetv2": (812_836, 4_671_496),
    "cifar:shufflenetv1": (949_258, 3_118_740),
    "cifar:shufflenetv2": (1_355_528, 4_519_988),
    "cifar:resnet50": (23_705_252, 76_976_704),
    "torchvision:resnet18": (11_689_512, 47_555_456),
    "torchvision:resnet34": (21_797_672, 76_474_240),
}


@pytest.mark.parametrize("name", COUNTS)
def test_branches_have_the_authors_parameter_counts(name):
    classes, side = (1000, 224) if name.startswith("torchvision:") else (100, 32)
    student = build_student(name, num_classes=classes, image_shape=(3, side, side))
    method = create_method("hsakd_teacher", student, Task("classification", classes, (3, side, side)))
    assert (count(method.student), count(method.branches)) == COUNTS[name]


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
