"""The comment that a recipe file begins with: what it reproduces, where its settings come from, what it costs."""

import re
from pathlib import Path

from .files import load_with_bases

FROM_BASE = ("Student", "Data", "Settings", "Command")  # paragraphs that hold for the files that build on this one


def read_header(path: Path) -> dict[str, str]:
    """Return the paragraphs of a recipe's first comment by label; what stands before the first label is under "".

    What a base says of the student, the data, the settings and the command holds where the file does not say it
    anew. NAME in a command stands for the file's own name.
    """
    header: dict[str, str] = {}
    for file in load_with_bases(path):
        own_header = read_own_header(file.path)
        header = own_header | {
            label: text for label, text in header.items() if label in FROM_BASE and label not in own_header
        }
    return {label: text.replace("/NAME", f"/{path.stem}") for label, text in header.items()}


def read_own_header(path: Path) -> dict[str, str]:
    """Return what `read_header` does, without what the bases say."""
    comment = re.match(r"(?:#.*\n)*", path.read_text(encoding="utf-8"))[0]
    text = re.sub("^# ?", "", comment, flags=re.MULTILINE)
    first, *others = re.split(r"^([A-Z]\w*): ", text, flags=re.MULTILINE)  # text, label, text, label, text ...
    header = {"": first} | dict(zip(others[::2], others[1::2], strict=True))
    return {label: " ".join(words.split()) for label, words in header.items() if words.strip()}


def describe(path: Path) -> str:
    """Return the first sentence of a recipe's comment, or of its paragraph Reproduces."""
    header = read_own_header(path)
    return (header.get("Reproduces") or header.get("", "")).partition(". ")[0].removesuffix(".")
