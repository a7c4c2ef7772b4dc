"""Sentences: the nearest legal name, a count with its noun, another library's error on one line, names as text."""

import difflib
import os
import unicodedata
from collections.abc import Iterable

FEW = 30  # names that a sentence can list
LONGEST_MESSAGE = 240


def did_you_mean(
    name: str, known: Iterable[str], prefix: str = "", *, otherwise: str | None = None, cutoff: float = 0.5
) -> str:
    """The end of a sentence about an unknown name: the most similar of the `known` names, whatever its case.

    Where none is similar (`cutoff`: 0 to 1), it says `otherwise`; without that, it lists all names if they are few.

    >>> did_you_mean("Resnet81", ["resnet18", "vgg11"], "cifar:")
    "; did you mean 'cifar:resnet18'?"
    >>> did_you_mean("x", ["a", "b"]), did_you_mean("x", ["a", "b"], otherwise="name a letter")
    ('; the choice is: a, b', '; name a letter')
    """
    spelling = {known_name.lower(): known_name for known_name in known}
    similar = difflib.get_close_matches(name.lower(), spelling, n=5, cutoff=cutoff)
    if similar:
        best = max(similar, key=lambda other: _similarity(name.lower(), other))
        return f"; did you mean '{prefix}{spelling[best]}'?"
    if otherwise is not None:
        return f"; {otherwise}" if otherwise else ""
    is_few = 0 < len(spelling) <= FEW
    return f"; the choice is: {', '.join(prefix + other for other in spelling.values())}" if is_few else ""


def _similarity(name: str, other: str) -> tuple[float, int]:
    """For ordering: resnet21 shares as many letters with resnet32 as with resnet20, but begins like the latter."""
    return difflib.SequenceMatcher(None, name, other).ratio(), len(os.path.commonprefix([name, other]))


def count_of(count: int, noun: str) -> str:
    """A count with its noun, in the plural unless the count is 1.

    >>> count_of(1, "value"), count_of(1200, "step"), count_of(0, "class")
    ('1 value', '1,200 steps', '0 classes')
    """
    plural = f"{noun}es" if noun.endswith(("s", "x", "ch")) else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


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


def one_line(error: BaseException) -> str:
    """The type and the beginning of the message of an error, on one line."""
    message = " ".join(str(error).split())
    if len(message) > LONGEST_MESSAGE:
        message = f"{message[:LONGEST_MESSAGE]}..."
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
