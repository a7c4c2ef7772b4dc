"""check: looks at a data set before anything is trained on it."""

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from ..build import create_student
from ..config.files import dump_commented
from ..config.overrides import write_word
from ..config.read import change, read
from ..config.recipe import Recipe
from ..data.datasets.base import LabeledDataset, select_evenly
from ..data.datasets.conversion import to_8_bits
from ..data.datasets.registry import open_source
from ..data.defaults import choose_channels
from ..data.findings import Finding, count_classes, find_all
from ..data.inspection import Inspection, inspect_images
from ..errors import escape_controls
from ..report.data_page import DataPage, Suggestion, draw_data_page
from ..report.document import to_html
from ..runs.files import make_folders, write_text
from ..tasks import Task, complete_recipe, find_task
from .arguments import split_words
from .console import console, say, tell
from .recipes import read_words

SMALL = 64  # pixels of the longer side, up to which a network for small images is suggested
NAMING = ("val", "image_column", "label_column", "stream", "opener")  # settings that say which images and labels
STEPS, STEPS_AN_EPOCH = 10_000, 20  # of the suggested training
LEAST_BATCH = 8  # images, of which batch norms still get useful statistics
LEAST_EPOCHS, MOST_EPOCHS = 10, 200
COLUMNS = ("image_column", "label_column", "separator")  # settings of data without which a table is read otherwise
LENGTHS = ("epochs=", "max_steps=")
WEIGHTED = ("Unequal classes", "Rare classes")  # findings that class weights are for
TIMED = 4  # images of the step that is timed
SAMPLES, MOST_CLASSES = 6, 40  # images of each class on the page, and classes of which it shows them
SHOWN = 5  # examples of a finding in the terminal


class Checked(NamedTuple):
    """What a check found."""

    inspections: Mapping[str, Inspection]  # by split
    notes: Sequence[str]
    findings: Sequence[Finding]


def check_data(
    words: Sequence[str], *, most: int | None, as_json: bool, out: Path | None, file: Path | None, trust: bool = False
) -> None:
    """Prints what was found, and writes the page and a recipe where they are asked for.

    Ends with exit code 1 where there is a problem, so that scripts can stop.
    """
    if file is not None and file.exists():
        raise ValueError(f"{file} exists already; choose another --recipe")
    recipe, given = read_words(words), read(*split_words(words))  # with all defaults, and with the user's words alone
    checked = look(recipe, most)
    has_length = split_words(words)[0] is not None or any(word.startswith(LENGTHS) for word in words)
    suggestion = suggest(given, checked, has_length=has_length, trust=trust)
    if as_json:
        say(json.dumps(describe(recipe, checked, suggestion), ensure_ascii=False))
    else:
        show(recipe, checked, suggestion)
    if out is not None:
        path = make_folders(out, ".") / "check.html"
        write_text(path, to_html(draw_data_page(make_page(recipe, checked, suggestion))))
        tell(f"written: {path}, to open in a browser")
    if file is not None:
        write_text(file, escape_controls(dump_commented(change(given, suggestion.words)), keep="\n"))
        tell(f"{file} is written; train with: selfdistill train {file}")
    if any(finding.level == "problem" for finding in checked.findings):
        sys.exit(1)


def look(recipe: Recipe, most: int | None) -> Checked:
    """Reads all images of all splits, or `most` evenly taken ones of each."""
    opened = open_source(recipe.data, str(recipe.data.source), find_task(recipe.task.kind))
    splits = {split: dataset for split, dataset in opened.splits.items() if len(dataset)}
    if "train" not in splits:
        raise ValueError(f"{recipe.data.source} has no training images to check; it has: {', '.join(splits) or 'none'}")
    chosen = {split: select_evenly(len(dataset), most or len(dataset)) for split, dataset in splits.items()}
    with show_progress(sum(map(len, chosen.values()))) as advance:
        inspections = {split: inspect_images(dataset, chosen[split], show=advance) for split, dataset in splits.items()}
    notes = [*opened.notes, *(note for dataset in splits.values() for note in dataset.label_notes)]
    return Checked(inspections, tuple(dict.fromkeys(notes)), find_all(inspections))


@contextmanager
def show_progress(total: int) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("images", total=total)
        yield lambda count: progress.advance(task, count)


def suggest(given: Recipe, checked: Checked, *, has_length: bool = False, trust: bool = False) -> Suggestion:
    """Settings that suit the images, and how long plain training with them takes here; the user's own words stay."""
    training, task = checked.inspections["train"], find_task(given.task.kind)
    formats = [seen.format for seen in training.seen.values()]
    if not formats or len(training.dataset.classes) < 2:
        return Suggestion([], [], None)
    recipe = complete_recipe(given)
    size = recipe.data.image_size or task.choose_size(recipe.data, {(one.height, one.width) for one in formats})
    height, width = (size, size) if isinstance(size, int) else size
    channels = recipe.data.channels or choose_channels(formats)
    chosen: dict[str, object] = {"data": recipe.data.source}
    chosen |= {f"data.{name}": getattr(given.data, name) for name in NAMING if getattr(given.data, name)}
    if given.task.model_fields_set:
        chosen["task"] = given.task.kind
    chosen |= {f"data.{name}": value for name in COLUMNS if (value := getattr(given.data, name)) is not None}
    reasons = []
    if given.data.on_error == "stop" and any(found.errors for found in checked.inspections.values()):
        chosen["data.on_error"] = "skip"
        reasons.append("data.on_error=skip: leaves out the images that cannot be used")
    uneven = [finding.title for finding in checked.findings if finding.title in WEIGHTED]
    if uneven and given.task.class_weights is None:
        chosen["task.class_weights"] = "effective"
        reasons.append(f"task.class_weights=effective: {uneven[0].lower()}")
    if task.output == "image" and given.student.name is None:
        chosen["student"] = "cifar:resnet20" if max(height, width) <= SMALL else "timm:resnet18"
        reasons.append(f"{chosen['student']}: made for images of about {height}x{width} pixels")
    count = len(training.dataset)
    if given.batch_size is None:
        batch = 2 ** max((count // STEPS_AN_EPOCH).bit_length() - 1, 0)
        batch = min(recipe.batch_size or count, max(batch, LEAST_BATCH), count)
        chosen["batch_size"] = batch
        reasons.append(
            f"batch_size={batch}: the default, or down to {LEAST_BATCH} where an epoch would have fewer than 20 steps"
        )
    batch = int(chosen.get("batch_size", recipe.batch_size))
    if not has_length:
        epochs = min(max(round(STEPS * batch / count), LEAST_EPOCHS), MOST_EPOCHS)
        chosen["epochs"] = epochs
        reasons.append(f"epochs={epochs}: about {epochs * max(count // batch, 1):,} steps")
    words = [write_word(name, value) for name, value in chosen.items()]
    recipe = complete_recipe(change(given, words))
    seconds = time_image(recipe, training.dataset, (channels, height, width), trust=trust)
    images = recipe.epochs * count if recipe.epochs else (recipe.max_steps or 0) * batch
    return Suggestion(words, reasons, seconds * images)


def time_image(recipe: Recipe, dataset: LabeledDataset, shape: tuple[int, int, int], *, trust: bool = False) -> float:
    """Seconds of plain training for one image: the second of two steps on a few random images."""
    task = Task(recipe.task.kind, len(dataset.classes), shape)
    drawn = recipe.student.model_copy(update={"pretrained": False, "start": None})  # weights cost nothing in time
    student, _ = create_student(drawn, task, dataset.classes, trust=trust)
    student.train()
    images = torch.randn(TIMED, *shape)
    for _ in range(2):
        started = time.perf_counter()
        student(images).square().mean().backward()
        seconds = time.perf_counter() - started
    return seconds / TIMED


def make_page(recipe: Recipe, checked: Checked, suggestion: Suggestion) -> DataPage:
    """What the page shows, with the first images of each class."""
    training = checked.inspections["train"]
    samples: dict[str, list[int]] = {name: [] for name in training.dataset.classes[:MOST_CLASSES]}
    for i in training.seen:
        for k in training.dataset.find_classes(i) or ():
            members = samples.get(training.dataset.classes[k])
            if members is not None and len(members) < SAMPLES:
                members.append(i)

    def draw(split: str, index: int) -> tuple[Image.Image, str] | None:
        inspection = checked.inspections[split]
        if index not in inspection.seen:
            return None
        return to_8_bits(inspection.dataset.image(index), 3), inspection.dataset.name(index)

    return DataPage(
        source=str(recipe.data.source),
        images={split: len(found.dataset) for split, found in checked.inspections.items()},
        counts={split: count_classes(found) for split, found in checked.inspections.items()},
        findings=checked.findings,
        notes=checked.notes,
        suggestion=suggestion,
        samples=samples,
        draw=draw,
    )


def describe(recipe: Recipe, checked: Checked, suggestion: Suggestion) -> dict[str, object]:
    """All of it as plain values."""
    return {
        "source": str(recipe.data.source),
        "splits": {
            split: {
                "images": len(found.dataset),
                "read": len(found.indices),
                "unusable": len(found.errors),
                "classes": count_classes(found),
            }
            for split, found in checked.inspections.items()
        },
        "findings": [
            {**finding._asdict(), "examples": list(finding.examples), "places": [list(p) for p in finding.places]}
            for finding in checked.findings
        ],
        "notes": list(checked.notes),
        "suggestion": {"words": suggestion.words, "seconds": suggestion.seconds},
    }


def show(recipe: Recipe, checked: Checked, suggestion: Suggestion) -> None:
    """The whole of it on a terminal."""
    from rich.table import Table

    counts = {split: count_classes(found) for split, found in checked.inspections.items()}
    names = list(dict.fromkeys(name for each in counts.values() for name in each))
    table = Table("class", *(f"{split} images" for split in counts), title=escape_controls(str(recipe.data.source)))
    for name in names:
        table.add_row(escape_controls(name), *(f"{each.get(name, 0):,}" for each in counts.values()))
    table.add_row("all", *(f"{len(found.dataset):,}" for found in checked.inspections.values()), style="bold")
    console().print(table)
    for note in checked.notes:
        say(f"note: {note}")
    for finding in checked.findings:
        say(f"{finding.level}: {finding.title}. {finding.sentence}")
        for example in finding.examples[:SHOWN]:
            say(f"  {example}")
        if len(finding.examples) > SHOWN:
            say(f"  and {len(finding.examples) - SHOWN:,} more; --json and --out tell all")
    if not checked.findings:
        say("nothing was found that speaks against training on these images")
    if suggestion.words:
        say(f"suggested: {shlex.join(['selfdistill', 'train', *suggestion.words])}")
    if (sentence := suggestion.describe_time()) is not None:
        say(sentence)
