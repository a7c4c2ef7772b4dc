"""The code blocks, commands and links of the documentation."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    language: str  # behind the fence; empty for commands
    text: str


def list_blocks(page: Path) -> list[Block]:
    found = re.findall(r"^```([^\n]*)\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [Block(page, language.strip(), text) for language, text in found]


def list_commands(page: Path) -> list[list[str]]:
    """The words behind `selfdistill` of every command in the page's blocks, without comments."""
    lines = [line for block in list_blocks(page) for line in join_lines(block.text)]
    return [words for line in lines if (words := read_command(line)) is not None]


def join_lines(text: str) -> list[str]:
    return re.sub(r"\\\n\s*", " ", text).splitlines()


def read_command(line: str) -> list[str] | None:
    """The words of a line `NAME=VALUE... selfdistill WORD...`; None for other lines."""
    if not re.match(r"^(\w+=\S+ )*selfdistill ", line):
        return None
    words = shlex.split(line, comments=True)
    return words[words.index("selfdistill") + 1 :]


def list_links(page: Path) -> Iterator[str]:
    """The targets of a page's links that lead to no other host."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            yield target


def list_anchors(page: Path) -> set[str]:
    """The names by which a page's headings are linked to."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
