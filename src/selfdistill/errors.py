"""Sentences: the nearest legal name, a count with its noun, another library's error on one line, names as text."""

import difflib
import os
import re
import sysconfig
import traceback
import unicodedata
from collections.abc import Iterable
from pathlib import Path

FEW = 30  # names that a sentence can list
SHORT_NAME = 4  # letters; such names are often alike without being meant
PLAIN_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
LONGEST_MESSAGE = 240
LONGEST_VALUE = 100
NOT_USERS = [Path(__file__).resolve().parent, *(Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib"))]


def did_you_mean(
    name: str,
    known: Iterable[str],
    prefix: str = "",
    *,
    otherwise: str | None = None,
    cutoff: float = 0.5,
    last_after: str | None = None,
) -> str:
    """The end of a sentence about an unknown name: the most similar of the `known` names, whatever its case.

    Where either has up to four letters, both must begin alike. Where none is similar (`cutoff`: 0 to 1), it says
    `otherwise`; without that, it lists all names if they are few. With `last_after`, only what
    follows the last such mark is compared.

    >>> did_you_mean("Resnet81", ["resnet18", "vgg11"], "cifar:")
    "; did you mean 'cifar:resnet18'?"
    >>> did_you_mean("x", ["a", "b"]), did_you_mean("x", ["a", "b"], otherwise="name a letter")
    ('; the choice is: a, b', '; name a letter')
    >>> did_you_mean("momentun", ["optim.lr", "optim.momentum"], last_after=".")
    "; did you mean 'optim.momentum'?"
    """
    known = list(known)

    def shorten(full: str) -> str:
        return (full if last_after is None else full.rpartition(last_after)[2]).lower()

    spelling = {shorten(known_name): known_name for known_name in reversed(known)}
    wanted = shorten(name)
    similar = difflib.get_close_matches(wanted, spelling, n=5, cutoff=cutoff)
    similar = [other for other in similar if wanted[:1] == other[:1] or min(len(wanted), len(other)) > SHORT_NAME]
    if similar:
        best = max(similar, key=lambda other: _similarity(wanted, other))
        return f"; did you mean '{prefix}{spelling[best]}'?"
    if otherwise is not None:
        return f"; {otherwise}" if otherwise else ""
    is_few = 0 < len(known) <= FEW
    return f"; the choice is: {', '.join(prefix + other for other in known)}" if is_few else ""


def _similarity(name: str, other: str) -> tuple[float, int]:
    """For ordering: resnet21 shares as many letters with resnet32 as with resnet20, but begins like the latter."""
    return difflib.SequenceMatcher(None, name, other).ratio(), len(os.path.commonprefix([name, other]))


def count_of(count: int, noun: str) -> str:
    """A count with its noun, in the plural unless the count is 1.

    >>> count_of(1, "epoch"), count_of(1200, "epoch"), count_of(0, "class")
    ('1 epoch', '1,200 epochs', '0 classes')
    """
    plural = f"{noun}es" if noun.endswith(("s", "x", "tch")) else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def quote_value(value: object) -> str:
    """A value as code has it, cut short where it is long."""
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


def describe_misread_number(value: object, result: object) -> str:
    """What is wrong with a value that a type made a number of, and that does not read as one; empty if nothing is.

    A boolean is no number, and 1_0 is no way to write one. Lists and tuples are compared item by item.

    >>> describe_misread_number(True, 1), describe_misread_number("010", 10), describe_misread_number(["1_0"], [10])
    ('should be a number, not true or false', '', 'should be a number in plain digits')
    """
    if isinstance(value, list | tuple) and isinstance(result, list | tuple):
        return next(filter(None, map(describe_misread_number, value, result)), "")
    if isinstance(result, bool) or not isinstance(result, int | float):
        return ""
    if isinstance(value, bool):
        return "should be a number, not true or false"
    is_other_text = isinstance(value, str) and not PLAIN_NUMBER.fullmatch(value.strip())
    return "should be a number in plain digits" if is_other_text else ""


def escape_controls(text: str, keep: str = "") -> str:
    r"""The text with every character that a terminal or a page would obey, or cannot show, as its escape.

    These are control characters, line breaks, marks that turn the direction of writing, and bytes of a file name that
    are no text. Characters in `keep` stay.

    >>> escape_controls("a\x1b[31m b\n")
    'a\\x1b[31m b\\n'
    """
    if text.isprintable():
        return text
    return "".join(
        character if character in keep or not _is_control(character) else character.encode("unicode_escape").decode()
        for character in text
    )


def _is_control(character: str) -> bool:
    is_joiner = character in "\u200c\u200d"  # part of words in Persian and Hindi, and of emoji
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and not is_joiner


class UserCodeError(ValueError):
    """An error of the user's own code, which is not the fault of the image that it was given."""


def flatten_message(error: BaseException) -> str:
    """The whole message of an error on one line.

    >>> flatten_message(ValueError("one\\n  two"))
    'one two'
    """
    return " ".join(str(error).split())


def one_line(error: BaseException) -> str:
    """The type and the beginning of the message of an error, on one line, and where in the user's code it arose."""
    message = flatten_message(error)
    if len(message) > LONGEST_MESSAGE:
        message = f"{message[:LONGEST_MESSAGE]}..."
    line = f"{type(error).__name__}: {message}" if message else type(error).__name__
    where = find_user_line(error)
    return f"{line} ({where})" if where else line


def find_user_line(error: BaseException) -> str | None:
    """The file and line of the user's own code that an error last passed through; None if it passed through none.

    The user's own is what belongs neither to this package, nor to Python, nor to an installed one.

    >>> find_user_line(ValueError("raised by nobody")) is None
    True
    """
    frames = [(frame.f_code.co_filename, number) for frame, number in traceback.walk_tb(error.__traceback__)]
    users = [(file, number) for file, number in frames if _is_users(file)]
    if not users:
        return None
    file, number = users[-1]
    relative = os.path.relpath(file)
    return f"{file if relative.startswith(os.pardir) else relative}:{number}"


def _is_users(file: str) -> bool:
    if file.startswith("<") or not os.path.exists(file):
        return False
    path = Path(file).resolve()
    is_installed = bool({"site-packages", "dist-packages"} & {*path.parts})
    return not is_installed and not any(path.is_relative_to(folder) for folder in NOT_USERS)
