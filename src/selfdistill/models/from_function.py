"""`package.module:function`: networks of the user's own."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from ..errors import load, nearest, reason, working_directory_importable
from .errors import refused_option


def build(
    module: str,
    function: str,
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    pretrained: bool,
    options: dict[str, Any],
) -> nn.Module:
    """What `function` of `module` returns for `num_classes=`, the options, and what else it names of
    `in_channels`, `in_chans`, `image_shape` and `pretrained`. Errors as `build_student`.
    """
    student = f"{module}:{function}"
    constructor = load(student, others=("cifar", "efficientdet", "smp", "timm", "torchvision"))
    with working_directory_importable():
        settled = {
            "num_classes": num_classes,
            "in_channels": image_shape[0],
            "in_chans": image_shape[0],
            "image_shape": image_shape,
            "pretrained": pretrained,
        }
        given = _arguments(student, constructor, options=options, settled=settled)
        try:
            net = constructor(**given)
        except Exception as error:
            raise ValueError(f"{student} raised {reason(error)}") from error
    if not isinstance(net, nn.Module):
        raise ValueError(f"{student} must return a torch.nn.Module, not a {type(net).__name__}")
    return net


def _arguments(
    student: str,
    constructor: Callable[..., Any],
    *,
    options: dict[str, Any],
    settled: dict[str, Any],
) -> dict[str, Any]:
    """The options, and of the settled arguments those that the constructor names; refuses what it cannot take."""
    parameters = list(inspect.signature(constructor).parameters.values())
    named = [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    takes_any = any(each.kind == each.VAR_KEYWORD for each in parameters)
    if "num_classes" not in named and not takes_any:
        raise ValueError(f"{student} must take num_classes={nearest('num_classes', named)}")
    asked = {"num_classes"} | ({"pretrained"} if settled["pretrained"] else set())
    given = {name: value for name, value in settled.items() if name in named or (takes_any and name in asked)}
    if settled["pretrained"] and "pretrained" not in given:
        raise ValueError(f"{student} does not take pretrained=, so pretrained=true would have no effect")
    for option in options:
        if option in settled:
            raise ValueError(f"{student}: {option} is not an option, it follows from the data")
        if option not in named and not takes_any:
            raise refused_option(student, option, [name for name in named if name not in settled])
    for each in parameters:
        needed = each.default is each.empty and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
        if needed and each.name not in given | options:
            raise ValueError(f"{student} needs a value for {each.name!r}: give it as an option of the student")
    return given | options
