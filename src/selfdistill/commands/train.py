"""What the commands do: the steps of the library put together for a user at a keyboard."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..build import build
from ..config.files import dump_commented
from ..config.part import flatten, list_settings
from ..config.read import change, read
from ..config.recipe import DataPart, MethodPart, Recipe
from ..data import Draw, EvalSet, LabeledDataset, eval_loader, open_rows, open_splits, window
from ..errors import nearest, reason
from ..features.extractor import Taps
from ..features.modes import set_mode
from ..methods import find_method, list_methods
from ..metrics.evaluation import Scores
from ..metrics.sliding_window import score_map
from ..models import build_student, output_of
from ..runs.environment import Environment, describe_environment
from ..runs.files import replace_nan
from ..runs.folder import Run
from ..runs.records import EndRecord
from ..runs.student import load_student, read_card
from ..tasks import evaluate, find_task
from ..tasks.base import TaskKind
from ..training.callbacks import Callback
from ..training.device import choose_device
from ..training.experiment import Experiment
from ..training.loop import fit
from ..training.preflight import preflight
from ..training.signals import Interrupted
from ..training.state import Result
from .predict import device
from .progress import PlainProgress, RichProgress, console

RESUMABLE = ("max_steps", "machine")  # what may change when a run goes on


def start_run(recipe: Recipe, *, title: str | None = None) -> Result:
    """Builds and trains a new run and tells where it lies."""
    job = checked(build(recipe))
    # before there is a folder, as what this refuses can be mended in the recipe
    job.train_set.samples.fill(torch.device(choose_device(job.recipe)))
    run = Run.create(job.recipe.out, job.recipe) if first_process() else Run(job.recipe.out)
    if first_process():
        run.write_environment(facts(job))
        tell(f"run folder: {run.path}")
        for note in job.notes:
            tell(f"note: {note}")
    return train_run(job, run, resume=False, title=title)


def resume_run(path: Path, words: Sequence[str] = ()) -> Result | None:
    """Goes on with the run in `path` from its last checkpoint; only its length and machine settings may be changed.

    A finished run is left alone, and gives None.
    """
    run = Run.open(path)
    records = run.records()
    if not words and records and isinstance(records[-1], EndRecord):
        tell(f"{path} is finished: {records[-1].sentence()}")
        return None
    for word in words:
        if word.partition("=")[0].partition(".")[0] not in RESUMABLE:
            raise ValueError(f"{word} cannot change when a run goes on; what can: {', '.join(RESUMABLE)}")
    recipe = read(run.path / "recipe.yaml", [*words, f"out={run.path}"])
    if recipe.epochs is None and recipe.max_steps != run.recipe().max_steps:
        raise ValueError("max_steps laid out this run's learning-rate schedule and cannot change; start a new run")
    if recipe.precision == "auto" and choose_device(recipe) == "cpu":  # it began when that was fp32 on every CPU
        recipe = recipe.model_copy(update={"precision": "fp32"})
    job, begun = build(recipe), (run.path / "last.pt").exists()
    if first_process():
        run.write_environment(facts(job))
        if not begun:
            run.rewind(0)  # it was killed before its first checkpoint, and starts anew
    return train_run(job, run, resume=begun)


def checked(job: Experiment) -> Experiment:
    """The job, after what can be tried of it without training was tried."""
    preflight(job.method, job.recipe)
    job.train_set[Draw(0, 0)]  # an augmentation of the user's own may fail
    refuse_whole_images(job)
    return job


def refuse_whole_images(job: Experiment) -> None:
    """Raises `ValueError` for a student that cannot score held-out images at the size at which they are shown."""
    if job.held_out is None or not job.method.task.positions:  # then every image is shown at the student's own size
        return
    batch, shown = next(iter(job.held_out(workers=0))), window(job.recipe.data)
    shape, name = tuple(batch.images.shape[2:]), job.recipe.student.name
    try:
        with set_mode(job.method.student, training=False), torch.no_grad():
            score_map(job.method.student, batch.images, shape, window=shown)
    except Exception as error:  # of anyone's network
        way = "" if shown else "; set data.window=true, which shows it windows of data.image_size"
        raise ValueError(f"{name} cannot score images of {shape[0]}x{shape[1]} ({reason(error)}){way}") from error


def facts(job: Experiment) -> Environment:
    """What environment.json says of a run."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    return describe_environment(data=job.fingerprint, processes=processes, precision=job.recipe.precision)


def train_run(job: Experiment, run: Run, *, resume: bool, title: str | None = None) -> Result:
    """Trains and shows it; an interruption ends the program after saying how to go on."""
    callbacks: list[Callback] = []
    if first_process():
        name = title or f"{job.recipe.method.name} on {job.recipe.student.name}"
        callbacks.append(RichProgress(name) if sys.stdout.isatty() else PlainProgress())
    try:
        return fit(job, run, resume=resume, callbacks=callbacks)
    except Interrupted as stop:
        tell(f"{stop}; go on with: selfdistill train --resume {run.path}")
        sys.exit(130)


def compare_methods(arms: list[str], seeds: list[int], path: str | None, words: list[str]) -> None:
    """Trains every arm with every seed, or takes the run that is there, and prints and writes the table."""
    from ..report.comparison import compare_table

    base = read(path, words)
    folder = Path(base.out or f"runs/compare-{Path(base.data.source).stem}-{base.student.name.partition(':')[2]}")
    for name in base.method.hyperparameters:
        if all(name not in find_method(arm.split("+")[0]).hyperparameters() for arm in arms):
            raise ValueError(f"none of the methods {', '.join(arms)} has a hyper-parameter {name!r}")
    jobs = {arm: checked(build(arm_recipe(base, arm))) for arm in arms}  # all, before the first is trained
    if first_process():
        for note in dict.fromkeys(note for job in jobs.values() for note in job.notes):
            tell(f"note: {note}")
    plans = {arm: job.recipe for arm, job in jobs.items()}
    runs: dict[str, list[Path]] = {}
    for seed in seeds:
        for arm, plan in plans.items():
            place = folder / f"{arm}-s{seed}".replace("/", "_")
            runs.setdefault(arm, []).append(place)
            train_or_take(plan.model_copy(update={"seed": seed, "out": str(place)}), f"{arm}, seed {seed}")
    if first_process():
        table = compare_table(runs, baseline=arms[0])
        console().print(table.rich())
        (folder / "compare.md").write_text(table.markdown(), encoding="utf-8")
        (folder / "compare.json").write_text(table.json(), encoding="utf-8")
        tell(f"written: {folder / 'compare.md'}, {folder / 'compare.json'}")


def arm_recipe(base: Recipe, arm: str) -> Recipe:
    """The recipe of one arm, "METHOD+NAME=VALUE+...", without the base's settings that its method does not have.

    Settings behind the + are the method's hyper-parameters, its teacher, or full names such as mix=cutmix. Of another
    method's hyper-parameters it takes those of a method that it builds on, or that builds on it.
    """
    name, *own = arm.split("+")
    kind, other = find_method(name), find_method(base.method.name)
    known = kind.hyperparameters()
    akin = issubclass(kind, other) or issubclass(other, kind)
    shared = {key: value for key, value in base.method.hyperparameters.items() if akin and key in known}
    teacher = base.method.teacher if kind.needs_teacher else None
    method = {"name": name, "taps": base.method.taps, "teacher": teacher, **shared}
    known = {**known, "teacher": None}
    for word in own:
        setting = word.partition("=")[0]
        if setting not in known and setting not in (names := list_settings(Recipe)):
            raise ValueError(f"{arm}: {name} has no setting {setting!r}{nearest(setting, [*known, *names])}")
    own = [f"method.{word}" if word.partition("=")[0] in known else word for word in own]
    return change(base.model_copy(update={"method": MethodPart(**method)}), own)


def train_or_take(recipe: Recipe, title: str) -> None:
    """Trains a run of a comparison unless it is finished; goes on with one that was interrupted.

    Raises `ValueError` where the folder holds a run of another recipe.
    """
    place = Path(recipe.out or "")
    if not (place / "recipe.yaml").exists():
        start_run(recipe, title=title)
        return
    run = Run.open(place)
    there, here = (flatten(each.model_dump(mode="json")) for each in (run.recipe(), recipe))
    for name in here.keys() | there.keys():
        if here.get(name) != there.get(name) and not name.startswith(("machine.", "out")):
            raise ValueError(
                f"{place} holds a run of another recipe, whose {name} is {there.get(name)} and not {here.get(name)}; "
                f"set {name}={there.get(name)} or choose another out="
            )
    resume_run(place)


def score_run(path: Path, source: str | None) -> tuple[Scores, dict[str, Any], str]:
    """Scores of a run's student on its own held-out rows or on all labelled images of `source`.

    Also the same as plain values, of a segmenter the IoU of every class by its name and None for what is not defined,
    and what was scored, in words.
    """
    card = read_card(path)
    part, task, classes = card.data, find_task(card.task), card.classes
    rows = held_out_rows(part, task) if source is None else open_rows(fresh(part), source, classes, task)
    scores = evaluate(
        load_student(path).to(device()),
        eval_loader(EvalSet(rows, task.eval_transform(part)), batch_size=task.eval_batch_size(part)),
        num_classes=len(classes),
        kind=task.name,
        window=window(part),
        device=device(),
    )
    return scores, plain(scores, classes), source or f"held-out images of {part.source}"


def plain(scores: Scores, classes: Sequence[str]) -> dict[str, Any]:
    """Scores by their names, and those of single classes by the classes' names."""
    values = {
        name: dict(zip(classes, value, strict=True)) if isinstance(value, tuple) else value
        for name, value in scores._asdict().items()
    }
    return replace_nan(values)


def held_out_rows(part: DataPart, task: TaskKind) -> LabeledDataset:
    """The rows that training was scored on."""
    splits = open_splits(part, task)
    rows = splits.val if splits.val is not None else splits.test
    if rows is None:
        raise ValueError(f"{part.source} held nothing out to score on; name labelled images with --data")
    return rows


def fresh(part: DataPart) -> DataPart:
    """The part without its table columns, which need not be those of another source."""
    return part.model_copy(update={"image_column": None, "label_column": None})


def methods_table() -> Any:
    """Every method: its name, its paper, what it needs beside images and labels, its tasks and its cost."""
    from rich.table import Column, Table

    from .cards import needs, paper_of

    paper = Column("paper", overflow="fold")  # a link is broken rather than cut short
    table = Table("method", paper, "needs", "tasks", "cost beside plain training", title="selfdistill methods")
    for name in list_methods():
        kind = find_method(name)
        source, wanted = paper_of(kind), "; ".join(needs(kind)) or "nothing"
        cells = [f"{source.title}\n{source.link}".strip(), wanted, ", ".join(sorted(kind.tasks)), kind.cost]
        table.add_row(name, *(cell.replace("`", "") for cell in cells))  # Markdown's quotes
    return table


def taps_table(student: str, shape: tuple[int, int, int], names: list[str] | None, *, kind: str | None = None) -> Any:
    """The feature maps found in a network built without weights, for a kind of task: its own unless given."""
    from rich.table import Table

    output = output_of(student) if kind is None else find_task(kind).output
    network = build_student(student, num_classes=10, image_shape=shape, output=output)
    taps = Taps(network, shape, names)
    size = "x".join(map(str, shape))
    table = Table("tap", "channels", "height x width", title=f"{student} on {size}: {len(taps)} maps, by {taps.source}")
    for tap in taps:
        table.add_row(tap.name, str(tap.channels), f"{tap.size[0]} x {tap.size[1]}")
    return table


def write_recipe(recipe: Recipe, path: Path) -> None:
    """A recipe with every setting, commented, after a look at the data it names; an existing file is kept."""
    if path.exists():
        raise ValueError(f"{path} exists already; choose another --file")
    splits = open_splits(recipe.data, find_task(recipe.task.kind))
    held = {name: len(rows) for name, rows in splits._asdict().items() if name != "notes" and rows is not None}
    found = ", ".join(f"{count:,} {name}" for name, count in held.items())
    classes = splits.train.classes
    head = [
        f"# {recipe.method.name} on {recipe.data.source}: {len(classes)} classes; images: {found}",
        *(f"# {note}" for note in splits.notes),
        f"# run: selfdistill train {path}",
    ]
    path.write_text("\n".join(head) + "\n\n" + dump_commented(recipe), encoding="utf-8")


def first_process() -> bool:
    """Whether this is the process that writes and speaks, by the variables that launchers set."""
    return os.environ.get("RANK", "0") == "0"


def tell(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
