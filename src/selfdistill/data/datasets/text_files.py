"""Text files that people write: tables, palettes and lists, in the encodings of common programs."""

import codecs
import csv
import functools
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO

MARKS = {  # byte-order marks; the one of UTF-32 begins like the one of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
NOT_A_FILE = "is a folder, pipe or device, not a file"


def is_special(path: str) -> bool:
    """Whether something that is no regular file has this path; opening a pipe would wait for its writer."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False


@contextmanager
def open_text(path: str, kind: str = "text") -> Iterator[TextIO]:
    """Opens a file in UTF-8, or in UTF-16 or UTF-32 with a byte-order mark, as spreadsheets write it.

    Raises `ValueError` for another encoding and for wrong quotes; `kind` says what the file should be.
    """
    if is_special(path):
        raise ValueError(f"{path} {NOT_A_FILE}")
    with open(path, "rb") as file:
        head = file.read(4)
    encoding = next((name for mark, name in MARKS.items() if head.startswith(mark)), "utf-8-sig")
    try:
        with open(path, encoding=encoding, newline="") as text:
            yield text
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} cannot be read as {kind}: it is not in UTF-8 ({error}); save it as UTF-8") from None
    except csv.Error as error:
        raise ValueError(f"{path} cannot be read as {kind}: {error}") from None


def refuse_repeated(names: Iterable[str], where: str) -> None:
    """Raises `ValueError` for two columns of one name, of which readers would take either."""
    for name, count in Counter(names).items():
        if count > 1 and name.strip():
            raise ValueError(f"{where} has {count} columns called {name!r}; rename or remove all but one")


def find_spelling(folder: str, path: str) -> str | None:
    """The spelling of a relative or absolute path under which a file exists; None if there is none.

    Other systems separate folders by backslashes, compose accents differently (macOS lists them decomposed), or take
    names in any case. Then the name must be the only one that is meant.
    """
    slashed = path.replace("\\", "/")
    spellings = [path, *(unicodedata.normalize(form, text) for text in (path, slashed) for form in ("NFC", "NFD"))]
    existing = next((name for name in [*spellings, slashed] if os.path.isfile(os.path.join(folder, name))), None)
    return existing or _find_in_any_case(folder, slashed)


def _find_in_any_case(folder: str, path: str) -> str | None:
    parts = []
    for part in os.path.normpath(path).split("/"):
        here = os.path.join(folder, *parts)
        if part in ("", ".."):
            return None  # an absolute path, or one that leaves the folder
        if not os.path.isdir(here):
            return None
        alike = _list_names(here, os.stat(here).st_mtime_ns).get(_fold(part), [])
        if len(alike) != 1:
            return None
        parts.append(alike[0])
    found = os.path.join(*parts)
    return found if os.path.isfile(os.path.join(folder, found)) else None


@functools.lru_cache(maxsize=64)
def _list_names(folder: str, modified: int) -> dict[str, list[str]]:
    """The names in a folder, by their folded spelling; `modified` tells a folder that has changed from before."""
    names: dict[str, list[str]] = {}
    for name in os.listdir(folder):
        names.setdefault(_fold(name), []).append(name)
    return names


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())
