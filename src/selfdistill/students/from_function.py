"""`package.module:function`: networks of the user's own."""

import importlib
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from torch import nn

from .refusals import nearest, reason, refused_option


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
    with _working_directory_importable():
        constructor = _find(_import(module), function)
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


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    here = os.getcwd()
    if here in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _import(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ValueError(f"importing {module} raised {reason(error)}") from error
        parent, _, missing = error.name.rpartition(".")
        places = getattr(sys.modules[parent], "__path__", []) if parent else [os.getcwd()]
        siblings = [each.name for each in pkgutil.iter_modules(places)]
        if not parent:  # or one of the other sources was meant
            siblings += ["cifar", "timm", "torchvision"]
        prefix = f"{parent}." if parent else ""
        raise ValueError(
            f"no module {error.name!r} is installed or in {os.getcwd()}{nearest(missing, siblings, prefix)}"
        ) from None
    except Exception as error:
        raise ValueError(f"importing {module} raised {reason(error)}") from error


def _find(module: ModuleType, function: str) -> Callable[..., Any]:
    found = getattr(module, function, None)
    if callable(found):
        return found
    public = [name for name, each in vars(module).items() if callable(each) and not name.startswith("_")]
    prefix = f"{module.__name__}:"
    raise ValueError(f"{module.__name__} has no function {function!r}{nearest(function, public, prefix)}")


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
