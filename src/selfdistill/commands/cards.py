"""Method cards: what the file of a method says about it, as Markdown.

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
from ..report.sections.origin import MethodCard
from ..tasks import find_task, list_tasks

STEP_TIMES = Path(__file__).with_name("step_times.json")
PAGE = """# Methods

Written by `python -m selfdistill.commands.cards` from the files of `src/selfdistill/methods`; change those,
not this page.
Step times, ratios to plain training, are `src/selfdistill/commands/step_times.json`, written by
`benchmarks/overhead.py`.

"""


TASKS = """## Which method learns which task

Any other pair is refused in a sentence. In multilabel, an image shows any number of classes. A method
whose soft labels compare probabilities of classes then compares, for each class, the probability that it
is shown: the KL divergence of two Bernoulli distributions, summed over classes. Methods of attention and
features are unchanged. Methods that need the one class of an image (its rank, its other images, its place
in a joint label) do not learn it."""


class Paper(NamedTuple):
    """The paper that the docstring of a method's module names; a method without a paper has only a title."""

    title: str
    reference: str = ""  # authors, venue, link

    @property
    def link(self) -> str:
        """The first link."""
        return next((word.strip(".,;") for word in self.reference.split() if word.startswith("https://")), "")

    @property
    def venue(self) -> str:
        """Where and when the first reference appeared, or only when."""
        match = re.search(r"\. ([^.,]*\b(?:19|20)\d\d\b[^.,]*)[.,]", self.reference)
        return match[1] if match else ""


def page() -> str:
    """A table of all methods, one of the tasks that they learn, then the card of each."""
    names = list_methods()
    titles = ["method", "paper", "venue", "who teaches", "cost beside plain training", "teacher"]
    table = markdown_table(titles, [_format_row(name, find_method(name)) for name in names], numbers=False)
    return PAGE + "\n\n".join([table, TASKS, draw_tasks(names), *map(card, names)]) + "\n"


def draw_tasks(names: list[str]) -> str:
    """A table of which task each method learns."""
    tasks = list_tasks()
    rows = [[name, *("yes" if task in list_tasks_of(find_method(name)) else "" for task in tasks)] for name in names]
    return markdown_table(["method", *tasks], rows, numbers=False)


def card(name: str) -> str:
    """The card of one method: its paper, who teaches whom, needs, cost and hyper-parameters.

    `name` is a file of `methods/` or "package.module:Class". Raises `ValueError` for any other name, with the nearest.
    """
    facts = describe_method(name)
    items = "\n".join(f"- {fact}: {text}" for fact, text in facts.facts.items())
    texts = [_emphasize_label(_escape(text)) for text in facts.paragraphs]
    paragraphs = [f"## {name}", f"**{_escape(facts.title)}.**", _escape(facts.reference), *texts, items]
    if facts.hyperparameters:
        titles = ["hyper-parameter", "default", "allowed", "meaning"]
        paragraphs.append(markdown_table(titles, facts.hyperparameters, numbers=False))
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def describe_method(name: str) -> MethodCard:
    """What the card of a method says; errors as `card`."""
    method = find_method(name)
    paper = find_paper(method)
    facts = {
        "Tasks": ", ".join(list_tasks_of(method)),
        "Needs": "; ".join(list_needs(method)) or "nothing beside images and labels",
        "Loss terms from labels": describe_labels(method),
        "Loss terms from soft labels": describe_soft_labels(method),
        "Cost beside plain training": method.cost or "not stated",
        "Step time": describe_step_time(name),
        "Recipes": ", ".join(f"`{recipe}`" for recipe in find_recipes_of(name)),
    }
    return MethodCard(
        name,
        paper.title,
        paper.reference,
        paper.link,
        _read_docstring(method),
        {fact: text for fact, text in facts.items() if text},
        list_hyperparameters(method),
    )


def list_tasks_of(method: type[Method]) -> list[str]:
    """The names of the package's tasks that a method learns."""
    return [name for name in list_tasks() if method.find_obstacle(find_task(name), name) is None]


def describe_soft_labels(method: type[Method]) -> str:
    """Which loss terms compare class scores in the way of the task."""
    names = ", ".join(f"`{name}`" for name in method.soft_label_terms)
    return f"{names} by softmax; in multilabel by a sigmoid for each class, summed over classes" if names else ""


def find_paper(method: type[Method]) -> Paper:
    """The paper that the file of a method names."""
    docstring = inspect.cleandoc(sys.modules[method.__module__].__doc__ or method.__name__)
    title, _, rest = docstring.partition("\n\n")
    return Paper(" ".join(title.split()).removesuffix("."), " ".join(rest.partition("\n\n")[0].split()))


def list_needs(method: type[Method]) -> list[str]:
    """What a method needs beside images and labels."""
    teacher = f"that `{method.teacher_method}` trained" if method.teacher_method else "that is a trained network"
    views = f"{method.views} more augmented view{'s' * (method.views > 1)} of each image"
    positives = f"{method.positives} other image{'s' * (method.positives > 1)} of each image's class"
    conditions = {
        views: method.views > 0,
        positives: method.positives > 0,
        f"a teacher (`method.teacher`, a run folder) {teacher}": method.needs_teacher,
        "hard labels (`mix: none`)": not method.soft_targets,
        "square images": method.square_images,
    }
    return [need for need, holds in conditions.items() if holds]


def describe_labels(method: type[Method]) -> str:
    """Which loss terms of a method learn from labels by the task's loss, and which by a cross-entropy of its own."""
    either = [name for name in method.supervised_terms if name in method.weighted_terms]
    supervised = [name for name in method.supervised_terms if name not in either]
    own = [name for name in method.weighted_terms if name not in either]
    weighted = "a cross-entropy of the method's own, with the class weights of the task"
    said = {
        "by the task's loss and class weights": supervised,
        f"by the task's loss, or where the method smooths labels itself by {weighted}": either,
        f"by {weighted}": own,
    }
    return "; ".join(f"{', '.join(f'`{name}`' for name in names)} {text}" for text, names in said.items() if names)


def list_hyperparameters(method: type[Method]) -> list[list[str]]:
    """Name, default, allowed values and description of each hyper-parameter of a method, in order."""
    hints, per_pixel = get_type_hints(method, include_extras=True), method.defaults("pixel")
    rows = []
    for name, declared in method.hyperparameters().items():
        default = f"`{_format_value(declared.default)}`"
        if per_pixel[name] != declared.default:
            default += f"; per pixel: `{_format_value(per_pixel[name])}`"
        if callable(declared.short_run):
            default += "; short runs: as the run is"
        elif declared.short_run is not None:
            default += f"; short runs: `{_format_value(declared.short_run)}`"
        rows.append([f"`{name}`", default, describe_values(hints[name]), declared.description])
    return rows


def describe_values(hint: Any) -> str:
    """The values that a type annotation allows, in words.

    >>> describe_values(Literal["all", "others"]), describe_values(bool), describe_values(Annotated[int, "any"] | None)
    ('`all` or `others`', '`true` or `false`', 'whole number or `null`')
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return " or ".join(map(describe_values, arguments))
    if hint is bool or origin is Literal:
        return " or ".join(f"`{_format_value(value)}`" for value in (arguments or (True, False)))
    if hint is NoneType:
        return "`null`"
    type_, *constraints = arguments if origin is Annotated else [hint]
    noun = {float: "number", int: "whole number", str: "text"}.get(type_, str(type_))
    return f"{noun} {_describe_limits(constraints)}".strip()


def _describe_limits(constraints: list[Any]) -> str:
    words = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}
    limits = [(word, getattr(constraint, end, None)) for constraint in constraints for end, word in words.items()]
    phrases = [f"{word} {limit:g}" for word, limit in limits if limit is not None and limit != math.inf]
    return (" " if phrases and phrases[0].startswith("from") else " and ").join(phrases)


def find_recipes_of(method: str) -> list[str]:
    """The names of the package's recipes that use a method."""
    return [name for name, path in list_recipes().items() if _read_method(path) == method]


@functools.cache
def _read_method(recipe: Path) -> str:
    return read(recipe).method.name


def describe_step_time(name: str) -> str:
    """The step time of a method over that of plain training, for each student in step_times.json."""
    if name == "baseline":
        return "what the others' are measured against"
    measured = read_step_times()
    times = [
        f"{_describe_ratios(name, result)} for `{student}`"
        for student, result in measured["students"].items()
        if name in result["ratios"]
    ]
    return f"{', '.join(times)} ({measured['machine']}, batches of {measured['batch']})" if times else "not measured"


@functools.cache
def read_step_times() -> dict[str, Any]:
    """What `benchmarks/overhead.py` measured."""
    return json.loads(STEP_TIMES.read_text(encoding="utf-8"))


def find_step_times(name: str) -> dict[str, float]:
    """The step time of a method over that of plain training, by student; empty where it was not measured."""
    if name == "baseline":
        return dict.fromkeys(read_step_times()["students"], 1.0)
    times = {student: result["ratios"].get(name) for student, result in read_step_times()["students"].items()}
    return {student: time for student, time in times.items() if time is not None}


def _describe_ratios(name: str, result: dict[str, Any]) -> str:
    memory = result.get("memory", {}).get(name)
    return f"{result['ratios'][name]:.2f}x plain training's" + (f", {memory:.2f}x its memory" if memory else "")


def _format_row(name: str, method: type[Method]) -> list[str]:
    paper, teacher = find_paper(method), f"`{method.teacher_method}`" if method.teacher_method else "a trained network"
    title = f"[{_escape(paper.title)}]({paper.link})" if paper.link else _escape(paper.title)
    who_teaches = _escape(next(iter(_read_docstring(method)), ""))
    teacher = teacher if method.needs_teacher else "none"
    return [f"[{name}](#{name})", title, paper.venue, who_teaches, method.cost, teacher]


def _read_docstring(method: type[Method]) -> list[str]:
    """The paragraphs of the docstring of a method's class."""
    paragraphs = inspect.cleandoc(method.__doc__ or "").split("\n\n")
    return [" ".join(paragraph.split()) for paragraph in paragraphs if paragraph]


def _emphasize_label(text: str) -> str:
    label = "Departs from the paper:"
    return f"**{label}**{text.removeprefix(label)}" if text.startswith(label) else text


def _escape(text: str) -> str:
    """The text with its stars escaped, which Markdown would read as emphasis."""
    return text.replace("*", "\\*")


def _format_value(value: Any) -> str:
    """A value as recipes write it.

    >>> _format_value(None), _format_value(True), _format_value(0.05), _format_value("all")
    ('null', 'true', '0.05', 'all')
    """
    return yaml.safe_dump(value, width=1000).removesuffix("\n").removesuffix("\n...")


if __name__ == "__main__":
    Path(*sys.argv[1:] or ["docs/methods.md"]).write_text(page(), encoding="utf-8")
