"""`cifar:NAME`: which class and which arguments a name stands for."""

import re
from typing import Any

from torch import nn

from ...errors import did_you_mean
from ..errors import build_error, list_options, refuse_unknown
from .mobilenetv2 import MobileNetV2
from .resnet import BasicBlock, Bottleneck, ResNet
from .shufflenet import ShuffleNetV1, ShuffleNetV2
from .vgg import VGG
from .wrn import WideResNet

RESNETS = {  # block, blocks of each stage, channels of the stem and of each stage
    "resnet8": (BasicBlock, (1,) * 3, (16, 16, 32, 64)),
    "resnet14": (BasicBlock, (2,) * 3, (16, 16, 32, 64)),
    "resnet20": (BasicBlock, (3,) * 3, (16, 16, 32, 64)),
    "resnet32": (BasicBlock, (5,) * 3, (16, 16, 32, 64)),
    "resnet44": (BasicBlock, (7,) * 3, (16, 16, 32, 64)),
    "resnet56": (BasicBlock, (9,) * 3, (16, 16, 32, 64)),
    "resnet110": (BasicBlock, (18,) * 3, (16, 16, 32, 64)),
    "resnet8x4": (BasicBlock, (1,) * 3, (32, 64, 128, 256)),
    "resnet32x4": (BasicBlock, (5,) * 3, (32, 64, 128, 256)),
    "resnet18": (BasicBlock, (2, 2, 2, 2), (64, 64, 128, 256, 512)),
    "resnet34": (BasicBlock, (3, 4, 6, 3), (64, 64, 128, 256, 512)),
    "resnet50": (Bottleneck, (3, 4, 6, 3), (64, 64, 128, 256, 512)),
}
VGGS = {  # convolutions of each block
    "vgg8": (1, 1, 1, 1, 1),
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
MOBILE = {"mobilenetv2": MobileNetV2, "shufflenetv1": ShuffleNetV1, "shufflenetv2": ShuffleNetV2}
USUAL_WIDE_RESNETS = ("16-1", "16-2", "16-4", "28-2", "28-4", "28-10", "40-1", "40-2", "40-4")


def list_names() -> list[str]:
    """Networks to choose from; of the wide ones, whose depth and width are free, only the usual."""
    return [*RESNETS, *(f"wrn-{size}" for size in USUAL_WIDE_RESNETS), "frskd-wrn-16-2", *VGGS, *MOBILE]


def knows(network: str) -> bool:
    """Whether `build` takes `network`."""
    return network in list_names() or _parse_wide(network) is not None


def output(network: str) -> str:
    """What a score of `network` belongs to."""
    return "image"


def build(
    network: str, *, num_classes: int, image_shape: tuple[int, int, int], pretrained: bool, options: dict[str, Any]
) -> nn.Module:
    """`cifar:network` with fresh weights; errors as `build_student`."""
    student = f"cifar:{network}"
    constructor, fixed = _find_constructor(network)
    if pretrained:
        raise ValueError(f"{student} has no pretrained weights; set pretrained=false or take a timm: network")
    refuse_unknown(student, options, list_options(constructor, fixed))
    try:
        return constructor(**fixed, **options, in_channels=image_shape[0], num_classes=num_classes)
    except (TypeError, ValueError) as error:
        raise build_error(student, error, options) from error


def _find_constructor(network: str) -> tuple[type[nn.Module], dict[str, Any]]:
    """The class of a network, and the arguments that its name stands for."""
    if network in RESNETS:
        return ResNet, dict(zip(("block", "depths", "widths"), RESNETS[network], strict=True))
    if network in VGGS:
        return VGG, {"depths": VGGS[network]}
    if network in MOBILE:
        return MOBILE[network], {}
    arguments = _parse_wide(network)
    if arguments is None:
        raise ValueError(f"no network is called 'cifar:{network}'{did_you_mean(network, list_names(), 'cifar:')}")
    return WideResNet, arguments


def _parse_wide(network: str) -> dict[str, Any] | None:
    """What the name of a wide residual network stands for, None for other names.

    >>> _parse_wide("wrn-16-2")
    {'depth': 16, 'width': 2, 'norm': 'entry'}
    """
    match = re.fullmatch(r"(frskd-)?wrn-(\d+)-(\d+)", network)
    if match is None:
        return None
    depth, width = int(match[2]), int(match[3])
    legal = max(6 * round((depth - 4) / 6) + 4, 10)
    if depth != legal or width == 0:
        raise ValueError(
            f"'cifar:{network}' cannot be built: wide residual networks have 6n + 4 layers and a width of at least 1;"
            f" the nearest is 'cifar:{match[1] or ''}wrn-{legal}-{max(width, 1)}'"
        )
    return {"depth": depth, "width": width, "norm": "group" if match[1] else "entry"}
