"""One file, one method, one paper; the folder is the registry: a file of this folder is a name for `create_method`."""

import importlib
import pkgutil
from collections.abc import Sequence
from typing import Any

from torch import nn

from ..errors import did_you_mean
from ..imports import load
from ..method import Method
from ..task import Task


def list_methods() -> list[str]:
    """The names that `create_method` takes, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find_method(name: str) -> type[Method]:
    """The class behind a file of this folder or behind "package.module:Class"."""
    if ":" in name:
        return _foreign(name)
    if name not in list_methods():
        hint = did_you_mean(name.replace("-", "_"), list_methods()) or "; `selfdistill methods` lists them"
        raise ValueError(f"no method is called {name!r}{hint}")
    module = importlib.import_module(f"{__name__}.{name}")
    own = [each for each in vars(module).values() if _is_method(each) and each.__module__ == module.__name__]
    assert len(own) == 1, f"methods/{name}.py must define one Method, not {len(own)}"
    return own[0]


def create_method(
    name: str,
    student: nn.Module,
    task: Task,
    *,
    taps: Sequence[str] | None = None,
    teacher: nn.Module | None = None,
    **hyperparameters: Any,
) -> Method:
    """The method `name` around `student`.

    `taps` names the submodules whose outputs are the feature maps (found by themselves if None); `teacher` is the
    network that some methods learn from. Raises `ValueError` for unknown names and values, with the nearest legal one.
    """
    return find_method(name)(student, task, taps=taps, teacher=teacher, **hyperparameters)


def _foreign(name: str) -> type[Method]:
    found = load(name)
    if not _is_method(found):
        raise ValueError(f"{name!r} is not a subclass of selfdistill.Method")
    return found


def _is_method(thing: Any) -> bool:
    return isinstance(thing, type) and issubclass(thing, Method) and thing is not Method
