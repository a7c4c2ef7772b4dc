"""What commands print: everything goes through here, with control characters escaped.

Names of classes, files and settings may come from somebody else, and a terminal obeys what it is shown.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import escape_controls

_state = {"quiet": False}  # of this process


@contextmanager
def keep_quiet(quiet: bool) -> Iterator[None]:
    """Prints nothing until the block ends, if `quiet`."""
    before = _state["quiet"]
    _state["quiet"] = quiet or before
    try:
        yield
    finally:
        _state["quiet"] = before


def is_quiet() -> bool:
    return _state["quiet"]


def say(line: str) -> None:
    """Prints a line of a command's result."""
    if not is_quiet():
        print(escape_controls(line, keep="\t"), flush=True)


def tell(sentence: str) -> None:
    """Prints a sentence to standard error; results go to standard output."""
    if not is_quiet():
        print(escape_controls(sentence), file=sys.stderr, flush=True)


def console() -> Any:
    """A rich console for tables: as wide as the terminal, or 160 columns without a terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 160, quiet=is_quiet())
