"""Run-time checks of types and shapes, for those functions that name shapes.

The import hook of jaxtyping checks every function of a package, also those inside others, at every call of the outer
one. That is a fifth of the fast set's time, and types without shapes are read by a type checker.
"""

import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import Any

import jaxtyping
import torch

CHECK = jaxtyping.jaxtyped


def check_where_shapes_are_named() -> None:
    """Lets the import hook leave functions without shapes alone; to be called before the package is imported."""
    jaxtyping.jaxtyped = check


def check(*, typechecker: Any) -> Callable[[Any], Any]:
    """What `jaxtyping.jaxtyped` gives, or what leaves a function as it is, as one inside a compiled function."""

    def check_target(target: Any) -> Any:
        if torch.compiler.is_compiling() or not has_shapes(target):
            return target
        return CHECK(target, typechecker=typechecker)

    return check_target


def has_shapes(target: Any) -> bool:
    """Whether a function, a property or a data class has annotations with shapes."""
    if isinstance(target, property):
        return any(has_shapes(function) for function in (target.fget, target.fset) if function)
    if inspect.isclass(target) and not dataclasses.is_dataclass(target):
        return False
    target = getattr(target, "__func__", target)  # of a class method
    return any(names_shape(annotation) for annotation in target.__annotations__.values())


def names_shape(annotation: Any) -> bool:
    if inspect.isclass(annotation) and issubclass(annotation, jaxtyping.AbstractArray):
        return True
    return any(names_shape(argument) for argument in typing.get_args(annotation))
