"""methods and taps: tables of the methods, and of a network's feature maps."""

import json
from typing import Any

from rich.table import Column, Table

from ..errors import count_of
from ..features.extractor import Taps
from ..method import Method
from ..methods import find_method, list_methods
from ..models import build_student
from ..tasks import find_task, list_tasks
from .cards import card, find_paper, find_step_times, list_needs, list_tasks_of, read_step_times
from .console import console, say
from .families import FAMILIES, Family


def print_methods(name: str | None, *, as_json: bool = False) -> None:
    """Prints the card of one method, or all methods by family; as JSON, one object a line."""
    if as_json:
        for method in [name] if name else list_methods():
            say(json.dumps(list_facts(method), ensure_ascii=False))
    elif name is not None:
        print(card(name))
    else:
        print_families()


def list_facts(name: str) -> dict[str, Any]:
    """What `methods --json` says of a method."""
    method = find_method(name)
    paper = find_paper(method)
    return {
        "method": name,
        "taught_by": next((family.teaches for family in FAMILIES if name in family.names), None),
        "paper": paper.title,
        "venue": paper.venue,
        "link": paper.link,
        "tasks": list_tasks_of(method),
        "teacher": describe_teacher(method),
        "needs": [need.replace("`", "") for need in list_needs(method)],
        "cost": method.cost.replace("`", ""),
        "step_times": find_step_times(name),
    }


def describe_teacher(method: type[Method]) -> str | None:
    """Whose run teaches; None where the method needs no teacher."""
    return (method.teacher_method or "a trained network") if method.needs_teacher else None


def print_taps(
    student: str, names: list[str] | None, *, image_size: int | None, channels: int, task: str | None
) -> None:
    """Prints a table of the feature maps of a network; images have 32 pixels for cifar: networks, else 224."""
    size = image_size or (32 if student.startswith("cifar:") else 224)
    console().print(build_taps_table(student, (channels, size, size), names, task=task))


def print_families() -> None:
    """The methods by what teaches, with where to begin, the price of each and whether it needs a teacher."""
    out, measured = console(), read_step_times()
    student, *_ = measured["students"]
    out.print(
        f"Step time: that of plain training is 1; measured for {student} on {measured['machine']}.\n"
        "`selfdistill methods NAME` prints a method's card, `selfdistill methods --json` all facts.\n"
        "method=auto takes what did best in measured runs like yours, in equal time, and says why and how sure it is.",
        highlight=False,
    )
    for family in FAMILIES:
        out.print(f"\n[bold]What teaches: {family.teaches}[/bold]\n{family.begin}", highlight=False)
        out.print(build_family_table(family, student))


def build_family_table(family: Family, student: str) -> Any:
    """Name, step time around a student, teacher, tasks and paper of each method of a family."""
    table = Table(
        Column("method", width=16),
        Column("step", width=6, justify="right"),
        Column("teacher", width=15),
        Column("tasks", width=26),
        Column("paper", overflow="fold"),
        box=None,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="dim",
    )
    for name in family.names:
        method = find_method(name)
        time, tasks = find_step_times(name).get(student), list_tasks_of(method)
        table.add_row(
            name,
            f"{time:.2f}x" if time else "-",
            (describe_teacher(method) or "none").removeprefix("a "),
            "all" if tasks == list_tasks() else ", ".join(tasks),
            find_paper(method).venue or "-",
        )
    return table


def build_taps_table(
    student: str, shape: tuple[int, int, int], names: list[str] | None, *, task: str | None = None
) -> Any:
    """The feature maps of a network that is built without weights, for a task: its own unless given."""
    output = None if task is None else find_task(task).output
    network = build_student(student, num_classes=10, image_shape=shape, output=output)
    taps = Taps(network, shape, names)
    size = "x".join(map(str, shape))
    maps = count_of(len(taps), "map")
    table = Table("tap", "channels", "height x width", title=f"{student} on {size}: {maps}, by {taps.source}")
    for tap in taps:
        table.add_row(tap.name, str(tap.channels), f"{tap.size[0]} x {tap.size[1]}")
    return table
