"""`package.module:function`: networks of the user's own."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from ..errors import did_you_mean, one_line
from ..imports import load, working_directory_importable
from .errors import option_error

PREFIXES = (
    "cifar",
    "efficientdet",
    "hf",
    "smp",
    "timm",
    "torchvision",
)  # for which a module may be misspelt


def build(
    name: str,
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    pretrained: bool,
    options: dict[str, Any],
) -> nn.Module:
    """What the function `name` returns for `num_classes=`, the options, and those it takes of `in_channels=`,
    `in_chans=`, `image_shape=` and `pretrained=`. Errors as `build_student`.
    """
    function = load(name, others=PREFIXES)
    facts = {
        "num_classes": num_classes,
        "in_channels": image_shape[0],
        "in_chans": image_shape[0],
        "image_shape": image_shape,
        "pretrained": pretrained,
    }
    with working_directory_importable():
        arguments = choose_arguments(name, function, options=options, facts=facts)
        try:
            network = function(**arguments)
        except Exception as error:
            raise ValueError(f"{name} raised {one_line(error)}") from error
    if not isinstance(network, nn.Module):
        raise ValueError(f"{name} must return a torch.nn.Module, not a {type(network).__name__}")
    return network


def choose_arguments(
    name: str, function: Callable[..., Any], *, options: dict[str, Any], facts: dict[str, Any]
) -> dict[str, Any]:
    """The options, and of the facts those that the function takes; `ValueError` for what it cannot take."""
    parameters = list(inspect.signature(function).parameters.values())
    takes = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_any = any(p.kind == p.VAR_KEYWORD for p in parameters)
    if "num_classes" not in takes and not takes_any:
        raise ValueError(f"{name} must take num_classes={did_you_mean('num_classes', takes)}")
    needed_facts = {"num_classes"} | ({"pretrained"} if facts["pretrained"] else set())
    arguments = {fact: value for fact, value in facts.items() if fact in takes or (takes_any and fact in needed_facts)}
    if facts["pretrained"] and "pretrained" not in arguments:
        raise ValueError(f"{name} does not take pretrained=, so pretrained=true would have no effect")
    for option in options:
        if option in facts:
            raise ValueError(f"{name}: {option} is not an option, it follows from the data")
        if option not in takes and not takes_any:
            raise option_error(name, option, [parameter for parameter in takes if parameter not in facts])
    arguments |= options
    for p in parameters:
        is_needed = p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        if is_needed and p.name not in arguments:
            raise ValueError(f"{name} needs a value for {p.name!r}: give it as an option of the student")
    return arguments
