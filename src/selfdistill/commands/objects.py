"""Settings as a Python program gives them: keywords, nested or dotted, whose values may be objects.

What a recipe could name is replaced by its name: a function of a module, a class of a library. Everything else is lent
to the run under a name "object:NAME", which its recipe then holds.
"""

import copy
import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from ..config.overrides import expand, merge
from ..config.part import find_part_class, flatten
from ..config.recipe import Recipe
from ..data.datasets.given import Given
from ..imports import OBJECT
from ..method import Method
from ..methods import find_method, list_methods
from ..runs.trust import is_object

NETWORKS = ("student.name", "method.teacher", "method.teacher_network")
DATA = ("data.source", "data.val")
CALLABLES = ("task.kind", "task.loss", "method.name", "data.augment", "data.sampler", "data.opener")
PATHS = ("data.source", "data.val", "method.teacher", "student.start", "out")  # that may be a trained run too
PLAIN = (str, bool, int, float, type(None))


class Settings(NamedTuple):
    """Nested plain values, as a recipe file has them, and the objects that some of these name."""

    values: dict[str, Any]
    objects: dict[str, Any]


class LentNetwork:
    """Gives a network where a recipe names a function that builds one; `copies`: as it is now, each time."""

    def __init__(self, network: nn.Module, *, copies: bool) -> None:
        self.network = copy.deepcopy(network) if copies else network
        self.copies = copies

    def __call__(self, num_classes: int, pretrained: bool = False) -> nn.Module:
        return copy.deepcopy(self.network) if self.copies else self.network


def take_settings(
    settings: Mapping[str, Any],
    *,
    known: Mapping[str, Any] | None = None,
    copies: bool = False,
    classes: int | None = None,
) -> Settings:
    """Sorts keywords into plain values and objects; what is None is left to its default.

    `known` are the names of a run that goes on: its objects keep them. `copies`: each run gets a network of its own.
    `classes` is how many a method that is there already tells apart. Raises `ValueError` for an object where a plain
    value is wanted.
    """
    objects: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for name, value in sorted(settings.items(), key=lambda item: "." in item[0]):  # whole parts first
        if name == "data" and is_pair(value):
            value = _split_pair(value)
        for part in reversed(name.split(".")):
            value = {part: value}
        values = merge(values, value, Recipe)
    for name, value in [*_walk(values)]:
        if isinstance(value, PLAIN):
            continue
        known_name = (known or {}).get(name)
        _put(values, name, _name(name, value, objects, known_name, copies=copies, classes=classes))
    return Settings(values, objects)


def is_pair(data: Any) -> bool:
    """Whether data are several sets: a tuple, or a list of names and data sets; any other list is one set."""
    if isinstance(data, list):
        return bool(data) and all(isinstance(item, str | Path | Dataset) for item in data)
    return isinstance(data, tuple)


def _split_pair(pair: Sequence[Any]) -> dict[str, Any]:
    if len(pair) != 2:
        raise ValueError(f"data has {len(pair)} parts; give a data set, or a pair (train, val)")
    return {"source": pair[0], "val": pair[1]}


def _walk(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Every value under its dotted name, a plain one for a whole part under the part's main field."""
    expanded = {key: expand(value, find_part_class(Recipe, key)) for key, value in values.items()}
    return [*flatten(expanded).items()]


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    """Replaces a value of nested ones by its dotted name."""
    first, _, rest = name.partition(".")
    if not rest:
        values[first] = value
        return
    values[first] = expand(values[first], find_part_class(Recipe, first))
    inner = values[first] = dict(values[first])
    *parents, last = rest.split(".")
    for parent in parents:
        inner[parent] = dict(inner[parent])
        inner = inner[parent]
    inner[last] = value


def _name(setting: str, value: Any, objects: dict[str, Any], known: Any, *, copies: bool, classes: int | None) -> Any:
    """What a recipe holds for a value."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "path") and setting in PATHS and isinstance(value.path, Path):  # a trained run
        return str(value.path)
    if isinstance(value, np.generic) or (isinstance(value, Tensor | np.ndarray) and value.ndim == 0):
        return value.item()
    if isinstance(value, Tensor | np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple | set) and setting not in DATA:
        return [
            item if isinstance(item, PLAIN) else _name(setting, item, objects, None, copies=copies, classes=classes)
            for item in value
        ]
    if setting in DATA:
        return _lend(objects, value, Given(_check_data(setting, value), classes), known)
    if setting in NETWORKS and isinstance(value, nn.Module):
        if isinstance(value, Method) and setting == "student.name":
            raise ValueError("student is a method; give its network, or train the method with sd.fit(method, data)")
        return _lend(objects, value, LentNetwork(value, copies=copies or setting != "student.name"), known)
    if (setting in CALLABLES or setting in NETWORKS) and callable(value):
        return find_name(value) or _lend(objects, value, value, known)
    raise ValueError(f"{setting} takes a plain value or a name, and is of the class {type(value).__name__}")


def _check_data(setting: str, value: Any) -> Any:
    if isinstance(value, DataLoader):
        raise ValueError(f"{setting} is a DataLoader; give its data set, {setting.partition('.')[0]}=loader.dataset")
    if isinstance(value, type) or not hasattr(value, "__getitem__"):
        raise ValueError(f"{setting} is a {type(value).__name__}; give a path, a name or a torch Dataset")
    return value


def _lend(objects: dict[str, Any], value: Any, lent: Any, known: Any) -> str:
    """Adds an object under its name in the recipe of the run that goes on, or under one that is free."""
    if is_object(known if isinstance(known, str) else None):
        objects[known] = lent
        return known
    title = getattr(value, "__name__", type(value).__name__).strip("<>")
    name, number = f"{OBJECT}:{title}", 2
    while name in objects:
        name, number = f"{OBJECT}:{title}-{number}", number + 1
    objects[name] = lent
    return name


def find_name(value: Any) -> str | None:
    """The name by which a recipe can have a function or a class; None where no other process could import it.

    >>> from selfdistill.methods.frskd import FRSKD
    >>> find_name(FRSKD), find_name(lambda: 0)
    ('frskd', None)
    """
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "")
    if isinstance(value, type) and issubclass(value, Method):
        own = (module or "").rpartition(".")[2]
        if own in list_methods() and find_method(own) is value:
            return own
    if module in (None, "__main__", "__mp_main__") or not inspect.isroutine(value) and not isinstance(value, type):
        return None
    library = module.partition(".")[0]
    if library in ("timm", "torchvision") and inspect.isfunction(value):
        return f"{library}:{name}"
    if not name.isidentifier() or getattr(sys.modules.get(module), name, None) is not value:
        return None
    return f"{module}:{name}"
