"""What a user names as "package.module:name", to import, or as "object:NAME", of the program that calls."""

import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from .errors import did_you_mean, one_line

OBJECT = "object"  # in front of the colon: the name of an object that a program lends, which no other process has
_lent: dict[str, Any] = {}


@contextmanager
def lend(objects: Mapping[str, Any]) -> Iterator[None]:
    """Has `load` find these objects by their names "object:NAME" until the block ends."""
    before = dict(_lent)
    _lent.update(objects)
    try:
        yield
    finally:
        _lent.clear()
        _lent.update(before)


def load(name: str, others: Iterable[str] = ()) -> Any:
    """What "package.module:name" or "object:NAME" names, something to call; the working directory is searched too.

    Raises `ValueError` in one sentence, with the nearest module or name that exists; `others` are words that the user
    could have meant instead of the module.
    """
    module_name, colon, attribute = name.partition(":")
    if module_name == OBJECT:
        if name not in _lent:
            raise ValueError(
                f"{name} was an object of the Python program that used it, and is not at hand here; give it again: "
                "sd.train(resume=RUN, ...) goes on with a run, sd.load(RUN, student=...) takes a student"
            )
        return _lent[name]
    if not colon:
        raise ValueError(f"{name!r} names no function{suggest_colon(name) or '; write MODULE:FUNCTION'}")
    with working_directory_importable():
        module = _import(module_name, others)
    value = getattr(module, attribute, None)
    if callable(value):
        return value
    public = [other for other, value in vars(module).items() if callable(value) and not other.startswith("_")]
    raise ValueError(f"{module_name} has no function {attribute!r}{did_you_mean(attribute, public, f'{module_name}:')}")


@contextmanager
def working_directory_importable() -> Iterator[None]:
    """Finds modules in the working directory, as `python -m` does and an installed program does not."""
    here = os.getcwd()
    if here in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def suggest_colon(name: str) -> str:
    """The end of a sentence about an unknown name "module.name" whose module exists: it is written with a colon."""
    module, dot, attribute = name.rpartition(".")
    if not dot or not all(part.isidentifier() for part in name.split(".")):
        return ""
    with working_directory_importable():
        try:
            is_module = importlib.util.find_spec(module.partition(".")[0]) is not None
        except ValueError:  # of __main__
            is_module = False
    return f"; write '{module}:{attribute}'" if is_module else ""


def _import(module: str, others: Iterable[str]) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ValueError(f"importing {module} raised {one_line(error)}") from error
        parent, _, missing = error.name.rpartition(".")
        folders = getattr(sys.modules[parent], "__path__", []) if parent else [os.getcwd()]
        siblings = [info.name for info in pkgutil.iter_modules(folders)] + ([] if parent else list(others))
        hint = did_you_mean(missing, siblings, f"{parent}." if parent else "", otherwise="", cutoff=0.6)
        raise ValueError(f"no module {error.name!r} is installed or in {os.getcwd()}{hint}") from None
    except Exception as error:
        raise ValueError(f"importing {module} raised {one_line(error)}") from error
