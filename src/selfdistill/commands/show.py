"""methods and taps: tables of what there is."""

from typing import Any

from rich.table import Column, Table

from ..features.extractor import Taps
from ..methods import find_method, list_methods
from ..models import build_student
from ..tasks import find_task, list_tasks
from .cards import needs, paper_of


def methods_table() -> Any:
    """Every method: its name, its paper, what it needs beside images and labels, its tasks and its cost."""
    paper = Column("paper", overflow="fold")  # a link is broken rather than cut short
    table = Table("method", paper, "needs", "tasks", "cost beside plain training", title="selfdistill methods")
    for name in list_methods():
        kind = find_method(name)
        source, wanted = paper_of(kind), "; ".join(needs(kind)) or "nothing"
        cells = [f"{source.title}\n{source.link}".strip(), wanted, ", ".join(list_tasks(kind.outputs)), kind.cost]
        table.add_row(name, *(cell.replace("`", "") for cell in cells))  # Markdown's quotes
    return table


def taps_table(student: str, shape: tuple[int, int, int], names: list[str] | None, *, kind: str | None = None) -> Any:
    """The feature maps found in a network built without weights, for a kind of task: its own unless given."""
    output = None if kind is None else find_task(kind).output
    network = build_student(student, num_classes=10, image_shape=shape, output=output)
    taps = Taps(network, shape, names)
    size = "x".join(map(str, shape))
    table = Table("tap", "channels", "height x width", title=f"{student} on {size}: {len(taps)} maps, by {taps.source}")
    for tap in taps:
        table.add_row(tap.name, str(tap.channels), f"{tap.size[0]} x {tap.size[1]}")
    return table
