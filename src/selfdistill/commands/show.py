"""methods and taps: tables of the methods, and of a network's feature maps."""

from typing import Any

from rich.table import Column, Table

from ..errors import count_of
from ..features.extractor import Taps
from ..methods import find_method, list_methods
from ..models import build_student
from ..tasks import find_task, list_tasks
from .cards import card, find_paper, list_needs
from .console import console


def print_methods(name: str | None) -> None:
    """Prints the card of one method, or a table of all."""
    if name is not None:
        print(card(name))
    else:
        console().print(build_methods_table())


def print_taps(
    student: str, names: list[str] | None, *, image_size: int | None, channels: int, task: str | None
) -> None:
    """Prints a table of the feature maps of a network; images have 32 pixels for cifar: networks, else 224."""
    size = image_size or (32 if student.startswith("cifar:") else 224)
    console().print(build_taps_table(student, (channels, size, size), names, task=task))


def build_methods_table() -> Any:
    """Every method: its name, its paper, what it needs beside images and labels, its tasks and its cost."""
    paper = Column("paper", overflow="fold")  # a link is broken rather than cut short
    table = Table("method", paper, "needs", "tasks", "cost beside plain training", title="selfdistill methods")
    for name in list_methods():
        method = find_method(name)
        source, wants = find_paper(method), "; ".join(list_needs(method)) or "nothing"
        cells = [f"{source.title}\n{source.link}".strip(), wants, ", ".join(list_tasks(method.outputs)), method.cost]
        table.add_row(name, *(cell.replace("`", "") for cell in cells))  # Markdown's quotes
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
