"""What the commands do: the steps of the library put together for a user at a keyboard."""

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from .build import Job, build
from .data import Draw, Rows, eval_loader, eval_transform, open_rows, open_splits, read_image
from .data.folders import EXTENSIONS
from .display import Lines, Live, LogFile, Several, console, line
from .environment import environment
from .foreign import nearest
from .interrupt import Interrupted
from .methods import find_method, list_methods
from .recipe import DataPart, MethodPart, Recipe, changed, commented, known_names, read
from .run import Run, load_student, read_about
from .scores import evaluate
from .settings import flattened
from .students import build_student
from .taps import Taps
from .train import Result, preflight
from .watch import Watch

RESUMABLE = ("max_steps", "machine")  # what may change when a run goes on


def start_run(recipe: Recipe, *, title: str | None = None) -> Result:
    """Builds and trains a new run and tells where it lies."""
    job = checked(build(recipe))
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
    records = run.metrics()
    if not words and records and records[-1]["kind"] == "end":
        tell(f"{path} is finished: {line(records[-1])}")
        return None
    for word in words:
        if word.partition("=")[0].partition(".")[0] not in RESUMABLE:
            raise ValueError(f"{word} cannot change when a run goes on; what can: {', '.join(RESUMABLE)}")
    recipe = read(run.path / "recipe.yaml", [*words, f"out={run.path}"])
    if recipe.epochs is None and recipe.max_steps != run.recipe().max_steps:
        raise ValueError("max_steps laid out this run's learning-rate schedule and cannot change; start a new run")
    job = build(recipe)
    if first_process():
        run.write_environment(facts(job))
    return train_run(job, run, resume=(run.path / "last.pt").exists())


def checked(job: Job) -> Job:
    """The job, after what can be tried of it without training was tried."""
    preflight(job.method, job.recipe)
    job.train_set[Draw(0, 0)]  # an augmentation of the user's own may fail
    return job


def facts(job: Job) -> dict[str, Any]:
    """What environment.json says of a run."""
    return environment(data=job.fingerprint, processes=int(os.environ.get("WORLD_SIZE", "1")))


def train_run(job: Job, run: Run, *, resume: bool, title: str | None = None) -> Result:
    """Trains and shows it; an interruption ends the program after saying how to go on."""
    shown = Watch()
    if first_process():
        name = title or f"{job.recipe.method.name} on {job.recipe.student.name}"
        shown = Several([Live(name) if sys.stdout.isatty() else Lines(), LogFile(run)])
    try:
        return job.fit(run, resume=resume, watch=shown)
    except Interrupted as stop:
        tell(f"{stop}; go on with: selfdistill train --resume {run.path}")
        sys.exit(130)


def compare_methods(arms: list[str], seeds: list[int], path: str | None, words: list[str]) -> None:
    """Trains every arm with every seed, or takes the run that is there, and prints and writes the table."""
    from .report import compare_table

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
        if setting not in known and setting not in (names := known_names()):
            raise ValueError(f"{arm}: {name} has no setting {setting!r}{nearest(setting, [*known, *names])}")
    own = [f"method.{word}" if word.partition("=")[0] in known else word for word in own]
    return changed(base.model_copy(update={"method": MethodPart(**method)}), own)


def train_or_take(recipe: Recipe, title: str) -> None:
    """Trains a run of a comparison unless it is finished; goes on with one that was interrupted.

    Raises `ValueError` where the folder holds a run of another recipe.
    """
    place = Path(recipe.out or "")
    if not (place / "recipe.yaml").exists():
        start_run(recipe, title=title)
        return
    run = Run.open(place)
    there, here = (flattened(each.model_dump(mode="json")) for each in (run.recipe(), recipe))
    for name in here.keys() | there.keys():
        if here.get(name) != there.get(name) and not name.startswith(("machine.", "out")):
            raise ValueError(
                f"{place} holds a run of another recipe, whose {name} is {there.get(name)} and not {here.get(name)}; "
                "choose another out="
            )
    resume_run(place)


def score_run(path: Path, source: str | None) -> tuple[Any, str]:
    """Scores of a run's student on its own held-out rows or on all labelled images of `source`, and what was scored."""
    about = read_about(path)
    part = DataPart.model_validate(about["data"])
    classes = tuple(about["classes"])
    rows = held_out_rows(part) if source is None else open_rows(fresh(part), source, classes)
    batches = eval_loader(rows, eval_transform(part), batch_size=128)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    scores = evaluate(load_student(path).to(device), batches, num_classes=len(classes), device=device)
    return scores, source or f"held-out images of {part.source}"


def held_out_rows(part: DataPart) -> Rows:
    """The rows that training was scored on."""
    splits = open_splits(part)
    rows = splits.val if splits.val is not None else splits.test
    if rows is None:
        raise ValueError(f"{part.source} held nothing out to score on; name labelled images with --data")
    return rows


def fresh(part: DataPart) -> DataPart:
    """The part without its table columns, which need not be those of another source."""
    return part.model_copy(update={"image_column": None, "label_column": None})


def predictions(path: Path, images: Sequence[Path], top: int) -> Iterator[tuple[Path, list[tuple[str, float]]]]:
    """Each image file with its most probable classes and their probabilities."""
    about, student = read_about(path), load_student(path)
    part = DataPart.model_validate(about["data"])
    transform = eval_transform(part)
    for image in image_files(images):
        with torch.inference_mode():
            scores = student(transform(read_image(str(image)))[None])[0]
        best = scores.float().softmax(0).topk(min(top, len(scores)))
        yield (
            image,
            [(about["classes"][i], p) for i, p in zip(best.indices.tolist(), best.values.tolist(), strict=True)],
        )


def image_files(paths: Sequence[Path]) -> Iterator[Path]:
    """The files among `paths`, and the images in its folders."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in EXTENSIONS)
        if not found:
            raise ValueError(f"the folder {path} holds no images")
        yield from found


def methods_table() -> Any:
    """Every method: its name, what it needs beside images and labels, its tasks, its cost and its paper."""
    from rich.table import Table

    table = Table("method", "paper", "needs", "tasks", "cost beside plain training", title="selfdistill methods")
    for name in list_methods():
        kind = find_method(name)
        doc = (sys.modules[kind.__module__].__doc__ or "").strip()
        paper = doc.partition("\n\n")[0].replace("\n", " ")
        link = [word.strip(".,;") for word in doc.split() if word.startswith("https://")][:1]
        needs = [
            f"{kind.views} more views" if kind.views else "",
            f"{kind.partners} partners" if kind.partners else "",
            "a teacher" if kind.needs_teacher else "",
            "" if kind.soft_targets else "hard labels",
        ]
        told = ", ".join(need for need in needs if need) or "nothing"
        table.add_row(name, "\n".join([paper, *link]), told, ", ".join(sorted(kind.tasks)), kind.cost)
    return table


def taps_table(student: str, image_shape: tuple[int, int, int], names: list[str] | None) -> Any:
    """The feature maps found in a network built without weights."""
    from rich.table import Table

    taps = Taps(build_student(student, num_classes=10, image_shape=image_shape), image_shape, names)
    size = "x".join(map(str, image_shape))
    table = Table("tap", "channels", "height x width", title=f"{student} on {size}: {len(taps)} maps, by {taps.source}")
    for tap in taps:
        table.add_row(tap.name, str(tap.channels), f"{tap.size[0]} x {tap.size[1]}")
    return table


def write_recipe(recipe: Recipe, path: Path) -> None:
    """A recipe with every setting, commented, after a look at the data it names; an existing file is kept."""
    if path.exists():
        raise ValueError(f"{path} exists already; choose another --file")
    splits = open_splits(recipe.data)
    held = {name: len(rows) for name, rows in splits._asdict().items() if name != "notes" and rows is not None}
    found = ", ".join(f"{count:,} {name}" for name, count in held.items())
    classes = splits.train.classes
    head = [
        f"# {recipe.method.name} on {recipe.data.source}: {len(classes)} classes; images: {found}",
        *(f"# {note}" for note in splits.notes),
        f"# run: selfdistill train {path}",
    ]
    path.write_text("\n".join(head) + "\n\n" + commented(recipe), encoding="utf-8")


def first_process() -> bool:
    """Whether this is the process that writes and speaks, by the variables that launchers set."""
    return os.environ.get("RANK", "0") == "0"


def tell(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)
