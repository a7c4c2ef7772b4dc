"""Names that a user gives: finding the nearest legal one, and importing `package.module:name`."""

import difflib
import importlib
import os
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any


def nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    """The end of a sentence: the closest of `known`, whatever its case, else all of them where they are few.

    >>> nearest("Resnet81", ["resnet18", "vgg11"], "cifar:")
    "; did you mean 'cifar:resnet18'?"
    """
    written = {each.lower(): each for each in known}
    near = difflib.get_close_matches(name.lower(), written, n=5, cutoff=0.5)
    if near:
        best = max(near, key=lambda each: _likeness(name.lower(), each))
        return f"; did you mean '{prefix}{written[best]}'?"
    few = 0 < len(written) <= 30
    return f"; the choice is: {', '.join(prefix + each for each in written.values())}" if few else ""


def _likeness(name: str, other: str) -> tuple[float, int]:
    """For ordering: resnet21 shares as many letters with resnet32 as with resnet20, but begins like the latter."""
    return difflib.SequenceMatcher(None, name, other).ratio(), len(os.path.commonprefix([name, other]))


def load(name: str, others: Iterable[str] = ()) -> Any:
    """What "package.module:name" names, something to call; the working directory is searched too.

    Raises `ValueError` in one sentence, with the nearest module or name there is; `others` are words that could have
    been meant for the module.
    """
    place, _, attribute = name.partition(":")
    with working_directory_importable():
        module = _import(place, others)
    found = getattr(module, attribute, None)
    if callable(found):
        return found
    public = [each for each, value in vars(module).items() if callable(value) and not each.startswith("_")]
    raise ValueError(f"{place} has no function {attribute!r}{nearest(attribute, public, f'{place}:')}")


@contextmanager
def working_directory_importable() -> Iterator[None]:
    """As `python -m` has it and an installed program does not."""
    here = os.getcwd()
    if here in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _import(module: str, others: Iterable[str]) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ValueError(f"importing {module} raised {reason(error)}") from error
        parent, _, missing = error.name.rpartition(".")
        places = getattr(sys.modules[parent], "__path__", []) if parent else [os.getcwd()]
        siblings = [each.name for each in pkgutil.iter_modules(places)] + ([] if parent else list(others))
        prefix = f"{parent}." if parent else ""
        raise ValueError(
            f"no module {error.name!r} is installed or in {os.getcwd()}{nearest(missing, siblings, prefix)}"
        ) from None
    except Exception as error:
        raise ValueError(f"importing {module} raised {reason(error)}") from error


def reason(error: BaseException) -> str:
    """The type and the beginning of the message of an error, on one line."""
    message = " ".join(str(error).split())
    message = message if len(message) <= 240 else f"{message[:240]}..."
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
