"""Results as Markdown pages: for each table a heading, the command and what it printed."""

import re
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any


def tell(sentence: str) -> None:
    """Prints a sentence about progress to standard error; tables go to standard output."""
    print(sentence, file=sys.stderr, flush=True)


def run_main(main: Callable[[], Any]) -> Any:
    """Runs a script's `main`; an error that the user can mend ends the script with one sentence."""
    try:
        return main()
    except ValueError as error:
        sys.exit(f"error: {error}")


def choose_file_name(hardware: str, day: date) -> str:
    """The page's name, by hardware and month.

    >>> choose_file_name("AMD EPYC, 2 threads", date(2026, 11, 22))
    'amd-epyc-2-threads-2026-11.md'
    """
    plain = re.sub(r"\((r|tm)\)|\bprocessor\b|@.*ghz", "", hardware.lower())
    return f"{re.sub(r'[^a-z0-9]+', '-', plain).strip('-')}-{day:%Y-%m}.md"


class Page:
    """A file of sections, in the order in which they were first written."""

    def __init__(self, path: Path, title: str) -> None:
        self.path = path
        text = path.read_text(encoding="utf-8") if path.exists() else f"# {title}\n"
        self.top, *sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
        self.sections = {section.partition("\n")[0].removeprefix("## "): section for section in sections}

    def holds(self, heading: str, command: str) -> bool:
        """Whether there is such a section, made by the same command."""
        return f"\n{command}\n" in self.sections.get(heading, "")

    def put(self, heading: str, command: str, printed: str) -> None:
        """Writes a section; it replaces one with the same heading."""
        self.sections[heading] = f"## {heading}\n\n```\n{command}\n```\n\n{printed.strip()}\n\n"
        text = self.top.rstrip() + "\n\n" + "".join(self.sections.values())
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(text.rstrip() + "\n", encoding="utf-8")
