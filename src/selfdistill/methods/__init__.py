"""One file, one method, one paper; the folder is the registry: a file of this folder is a name for `create_method`."""

import importlib
import pkgutil
from collections.abc import Sequence
from typing import Any

from torch import nn

from ..errors import did_you_mean
from ..imports import load, suggest_colon
from ..method import Method
from ..task import Task


def list_methods() -> list[str]:
    """The names that `create_method` takes, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find_method(name: str) -> type[Method]:
    """The class behind a file of this folder or behind "package.module:Class"."""
    if ":" in name:
        return _load_method(name)
    if name not in list_methods():
        hint = suggest_colon(name) or did_you_mean(
            name.replace("-", "_"), list_methods(), otherwise="`selfdistill methods` lists them", cutoff=0.6
        )
        raise ValueError(f"no method is called {name!r}{hint}")
    module = importlib.import_module(f"{__name__}.{name}")
    defined = [value for value in vars(module).values() if _is_method(value) and value.__module__ == module.__name__]
    assert len(defined) == 1, f"methods/{name}.py must define one Method, not {len(defined)}"
    return defined[0]


def create_method(
    name: str,
    student: nn.Module,
    task: Task,
    *,
    taps: Sequence[str] | None = None,
    teacher: nn.Module | None = None,
    **hyperparameters: Any,
) -> Method:
    """Wrap a network in a training method.

    Args:
        name: A file of this folder, see `list_methods`, or "package.module:Class".
        student: The network to train. It stays as it is, and is what ships.
        task: What the student learns.
        taps: Names of the submodules whose outputs are the feature maps; None finds them.
        teacher: The network that some methods learn from.
        **hyperparameters: Values other than the method's defaults.

    Returns:
        The method, an `nn.Module` whose forward pass returns named loss terms.

    Raises:
        ValueError: for unknown names and illegal values, with the nearest legal one.

    >>> import selfdistill as sd
    >>> student = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    >>> task = sd.Task("classification", num_classes=5, image_shape=(3, 2, 2))
    >>> method = create_method("label_smoothing", student, task, epsilon=0.2)
    >>> method.epsilon
    0.2
    """
    return find_method(name)(student, task, taps=taps, teacher=teacher, **hyperparameters)


def _load_method(name: str) -> type[Method]:
    value = load(name)
    if not _is_method(value):
        raise ValueError(f"{name!r} is not a subclass of selfdistill.Method")
    return value


def _is_method(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Method) and value is not Method
