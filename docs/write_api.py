"""The reference of the public names, as Markdown, from their signatures and docstrings.

`python docs/write_api.py docs/api.md` writes the page.
"""

import inspect
import re
import sys
import textwrap
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import selfdistill

PAGE = """# Python reference

Written by `python docs/write_api.py docs/api.md` from the docstrings of the package; change those, not this page.
All names are those of `import selfdistill as sd`.
"""
SECTIONS = ("Args", "Attributes", "Returns", "Raises")


def write_page() -> str:
    """The page of all public names: functions first, then classes, then modules."""
    named = [(name, getattr(selfdistill, name)) for name in selfdistill.__all__]
    rank = [inspect.isfunction, inspect.isclass, inspect.ismodule]
    named.sort(key=lambda pair: next(i for i, holds in enumerate(rank) if holds(pair[1])))
    return "\n\n".join([PAGE.strip(), *(describe(name, value) for name, value in named)]) + "\n"


def describe(name: str, value: Any) -> str:
    if isinstance(value, ModuleType):
        return describe_module(name, value)
    parts = [f"## {name}", f"```text\nsd.{name}{format_signature(value)}\n```", format_docstring(value)]
    if inspect.isclass(value):
        parts.append("\n".join(f"- {line}" for line in list_members(value)))
    return "\n\n".join(part for part in parts if part)


def describe_module(name: str, module: ModuleType) -> str:
    functions = [(each, value) for each, value in vars(module).items() if is_public_function(each, value, module)]
    lines = [f"- `{each}{format_signature(value)}`: {first_line(value)}" for each, value in functions]
    return "\n\n".join([f"## {name}", inspect.cleandoc(module.__doc__ or ""), "\n".join(lines)])


def is_public_function(name: str, value: Any, module: ModuleType) -> bool:
    return inspect.isfunction(value) and not name.startswith("_") and value.__module__.startswith(module.__name__)


def list_members(kind: type) -> list[str]:
    """The fields, properties and methods that a class defines, one line each."""
    fields = [f"`{field}`: {source}" for field, source in list_fields(kind)]
    found = []
    for name, value in vars(kind).items():
        if name.startswith("_"):
            continue
        if isinstance(value, property | cached_property):
            found.append(f"`{name}`: {first_line(value.fget if isinstance(value, property) else value.func)}")
        elif inspect.isroutine(value):
            function = inspect.unwrap(getattr(kind, name))
            found.append(f"`{name}{format_signature(function)}`: {first_line(function)}")
    return [line for line in [*fields, *found] if not line.endswith(": ")]


def list_fields(kind: type) -> list[tuple[str, str]]:
    """Annotated fields with the comment behind them."""
    try:
        source = re.sub(r"  # type: ignore[^\n]*", "", inspect.getsource(kind))
    except (OSError, TypeError):
        return []
    own = vars(kind).get("__annotations__", {})
    return [(name, text) for name, text in re.findall(r"^    (\w+): [^\n]*?  # ([^\n]*)$", source, re.M) if name in own]


def format_signature(value: Any) -> str:
    try:
        text = str(inspect.signature(value))
    except (TypeError, ValueError):
        return "(...)"
    text = re.sub(r"\b(?:selfdistill|torch|pathlib|collections|typing|jaxtyping)(?:\.\w+)*\.", "", text)
    text = re.sub(r"<(?:function|class) '?(?:[\w.]*\.)?(\w+)'?[^>]*>", r"\1", text)
    return text.replace("(self, ", "(").replace("(self)", "()").replace("'", "").replace('"', "")


def first_line(value: Any) -> str:
    return inspect.cleandoc(value.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


def format_docstring(value: Any) -> str:
    """A docstring as Markdown: sections become lists, examples become blocks."""
    text = inspect.cleandoc(value.__doc__ or "")
    blocks = []
    for block in text.split("\n\n"):
        head, _, body = block.partition(":\n")
        if head in SECTIONS:
            blocks.append(f"**{head}**\n\n{format_section(textwrap.dedent(body).strip())}")
        elif block.startswith(">>>"):
            example = re.sub(r" *# doctest: [^\n]*", "", block)
            blocks.append(f"```pycon\n{example}\n```")
        else:
            blocks.append(block)
    return "\n\n".join(blocks)


def format_section(body: str) -> str:
    entries = re.split(r"\n(?=\S)", body)
    return "\n".join("- " + re.sub(r"^(\*{0,2}\w+):", r"`\1`:", " ".join(entry.split())) for entry in entries)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(write_page(), encoding="utf-8")
