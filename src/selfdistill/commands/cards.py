"""Method cards: what a method's file says of it, as Markdown.

`python -m selfdistill.commands.cards docs/methods.md` writes the page of all methods.
"""

import functools
import inspect
import json
import math
import re
import sys
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import yaml

from ..config.names import list_recipes
from ..config.read import read
from ..method import Method
from ..methods import find_method, list_methods
from ..report.markdown import markdown_table
from ..tasks import list_tasks

ROOT = Path(__file__).parents[3]  # of the source tree; an installed package has no step times
PAGE = """# Methods

Written by `python -m selfdistill.commands.cards` from the files of `src/selfdistill/methods`; change those,
not this page.
Step times, ratios to plain training, are `docs/step-times.json`, written by `benchmarks/overhead.py`.

"""


class Paper(NamedTuple):
    """What the docstring of a method's module says; without a paper, only the title."""

    title: str
    reference: str = ""  # authors, venue, link

    @property
    def link(self) -> str:
        """The first link."""
        return next((word.strip(".,;") for word in self.reference.split() if word.startswith("https://")), "")

    @property
    def venue(self) -> str:
        """Where and when the first reference appeared, or when alone."""
        found = re.search(r"\. ([^.,]*\b(?:19|20)\d\d\b[^.,]*)[.,]", self.reference)
        return found[1] if found else ""


def page() -> str:
    """A table of all methods, then the card of each."""
    names = list_methods()
    titles = ["method", "paper", "venue", "who teaches", "cost beside plain training", "teacher"]
    table = markdown_table(titles, [_row(name, find_method(name)) for name in names], numbers=False)
    return PAGE + "\n\n".join([table, *map(card, names)]) + "\n"


def card(name: str) -> str:
    """One method in Markdown: its paper, who teaches whom, needs, cost and hyper-parameters.

    `name` is a file of `methods/` or "package.module:Class"; raises `ValueError`, with the nearest, for any other.
    """
    kind = find_method(name)
    paper = paper_of(kind)
    facts = {
        "Tasks": ", ".join(list_tasks(kind.outputs)),
        "Needs": "; ".join(needs(kind)) or "nothing beside images and labels",
        "Cost beside plain training": kind.cost or "not stated",
        "Step time": step_time(name),
        "Recipes": ", ".join(f"`{recipe}`" for recipe in recipes_of(name)),
    }
    told = "\n".join(f"- {fact}: {text}" for fact, text in facts.items() if text)
    paragraphs = [f"## {name}", f"**{_prose(paper.title)}.**", _prose(paper.reference), *_docstring(kind), told]
    if rows := hyperparameter_rows(kind):
        titles = ["hyper-parameter", "default", "allowed", "meaning"]
        paragraphs.append(markdown_table(titles, rows, numbers=False))
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def paper_of(kind: type[Method]) -> Paper:
    """The paper that the method's file names."""
    title, _, rest = inspect.cleandoc(sys.modules[kind.__module__].__doc__ or kind.__name__).partition("\n\n")
    return Paper(" ".join(title.split()).removesuffix("."), " ".join(rest.partition("\n\n")[0].split()))


def needs(kind: type[Method]) -> list[str]:
    """What a method needs beside images and labels."""
    teacher = f"that `{kind.teacher_method}` trained" if kind.teacher_method else "that is a trained network"
    return [
        need
        for need, wanted in (
            (f"{kind.views} more augmented view{'s' * (kind.views > 1)} of each image", kind.views),
            (f"{kind.positives} other image{'s' * (kind.positives > 1)} of each image's class", kind.positives),
            (f"a teacher (`method.teacher`, a run folder) {teacher}", kind.needs_teacher),
            ("hard labels (`mix: none`)", not kind.soft_targets),
            ("square images", kind.square_images),
        )
        if wanted
    ]


def hyperparameter_rows(kind: type[Method]) -> list[list[str]]:
    """Name, default, allowed values and description of each hyper-parameter of a method, in order."""
    hints, per_pixel = get_type_hints(kind, include_extras=True), kind.defaults("pixel")
    rows = []
    for name, declared in kind.hyperparameters().items():
        default = f"`{_plain(declared.default)}`"
        if per_pixel[name] != declared.default:
            default += f"; segmentation: `{_plain(per_pixel[name])}`"
        rows.append([f"`{name}`", default, allowed(hints[name]), declared.description])
    return rows


def allowed(hint: Any) -> str:
    """The values that an annotation allows, in words.

    >>> allowed(Literal["all", "others"]), allowed(bool), allowed(Annotated[int, "any"] | None)
    ('`all` or `others`', '`true` or `false`', 'whole number or `null`')
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(map(allowed, inner))
    if hint is bool or origin is Literal:
        return " or ".join(f"`{_plain(value)}`" for value in (inner or (True, False)))
    if hint is NoneType:
        return "`null`"
    kind, *limits = inner if origin is Annotated else [hint]
    words = {float: "number", int: "whole number", str: "text"}.get(kind, str(kind))
    return f"{words} {' and '.join(_limits(limits))}".strip()


def _limits(marks: list[Any]) -> list[str]:
    words = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}
    ends = [(word, getattr(mark, end, None)) for mark in marks for end, word in words.items()]
    told = [f"{word} {value:g}" for word, value in ends if value is not None and value != math.inf]
    return [" ".join(told)] if told and told[0].startswith("from") else told


def recipes_of(method: str) -> list[str]:
    """The names of the recipes that come with the package and train with a method."""
    return [name for name, path in list_recipes().items() if _method_of(path) == method]


@functools.cache
def _method_of(recipe: Path) -> str:
    return read(recipe).method.name


def step_time(name: str) -> str:
    """What a step takes over one of plain training, as docs/step-times.json has it for each student."""
    file = ROOT / "docs/step-times.json"
    measured = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"students": {}}
    if name == "baseline":
        return "what the others' are measured against"
    told = [f"{_ratios(name, each)} for `{s}`" for s, each in measured["students"].items() if name in each["ratios"]]
    return f"{', '.join(told)} ({measured['machine']}, batches of {measured['batch']})" if told else "not measured"


def _ratios(name: str, student: dict[str, Any]) -> str:
    memory = student.get("memory", {}).get(name)
    return f"{student['ratios'][name]:.2f}x plain training's" + (f", {memory:.2f}x its memory" if memory else "")


def _row(name: str, kind: type[Method]) -> list[str]:
    paper, teacher = paper_of(kind), f"`{kind.teacher_method}`" if kind.teacher_method else "a trained network"
    title = f"[{_prose(paper.title)}]({paper.link})" if paper.link else _prose(paper.title)
    who = next(iter(_docstring(kind)), "")
    return [f"[{name}](#{name})", title, paper.venue, who, kind.cost, teacher if kind.needs_teacher else "none"]


def _docstring(kind: type[Method]) -> list[str]:
    """The paragraphs of the class's docstring."""
    paragraphs = [_prose(" ".join(each.split())) for each in inspect.cleandoc(kind.__doc__ or "").split("\n\n")]
    label = "Departs from the paper:"
    return [
        f"**{label}**" + each.removeprefix(label) if each.startswith(label) else each for each in paragraphs if each
    ]


def _prose(text: str) -> str:
    """Text in which Markdown takes no star for emphasis."""
    return text.replace("*", "\\*")


def _plain(value: Any) -> str:
    """A value as recipes write it.

    >>> _plain(None), _plain(True), _plain(0.05), _plain("all")
    ('null', 'true', '0.05', 'all')
    """
    return yaml.safe_dump(value, width=1000).removesuffix("\n").removesuffix("\n...")


if __name__ == "__main__":
    Path(*sys.argv[1:] or ["docs/methods.md"]).write_text(page(), encoding="utf-8")
