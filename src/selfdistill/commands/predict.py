"""predict: names the classes of image files by a run's student."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..data import list_labels
from ..data.datasets.image_folder import is_hidden, is_image
from ..distributed import default_device
from ..errors import count_of, escape_controls, find_user_line, one_line
from ..runs.files import replace_file
from ..runs.student import load_student, read_complete_card
from ..tasks import find_task
from ..tasks.base import ImageFile, Prediction
from .arguments import tell_other_run
from .console import say, tell
from .evaluate import forget_columns

FIRST_COLUMN = "image"  # of the table that --csv writes


class Unreadable(NamedTuple):
    """An image that could not be predicted."""

    image: Path
    reason: str


def print_predictions(
    run: Path,
    images: Sequence[Path],
    *,
    top: int | None = None,
    out: Path | None = None,
    as_json: bool,
    table: Path | None = None,
    compare: str | None = None,
    trust: bool = False,
) -> None:
    """Prints the classes of each image on a line, names the files that were written, and writes a `table`.

    Goes on after an image that cannot be predicted, and raises `ValueError` at the end.
    """
    if table is not None:
        refuse_foreign_table(table)
    is_single = len(images) == 1 and not images[0].is_dir()
    outcomes: list[Prediction | Unreadable] = []
    try:
        for outcome in predict_images(run, images, top=top, out=out, compare=compare, trust=trust):
            outcomes.append(outcome)
            if as_json:
                say(json.dumps(describe_outcome(outcome)))
            elif isinstance(outcome, Prediction):
                shares = [f"{escape_controls(name)} {share:.1%}" for name, share in outcome.classes] or ["(no class)"]
                say("\t".join([escape_controls(str(outcome.image)), *shares]))
            elif not is_single:
                tell(f"not predicted: {outcome.reason}")
    finally:
        if table is not None and outcomes:
            write_table(table, outcomes)
    tell_files(outcomes, compare)
    failed = [outcome for outcome in outcomes if isinstance(outcome, Unreadable)]
    if failed and is_single:
        raise ValueError(failed[0].reason)
    if failed:
        raise ValueError(f"{len(failed)} of {count_of(len(outcomes), 'image')} could not be predicted")


def predict_images(
    run: Path,
    images: Sequence[Path],
    *,
    top: int | None = None,
    out: Path | None = None,
    compare: str | None = None,
    trust: bool = False,
) -> Iterator[Prediction | Unreadable]:
    """The `top` classes of each image file, and of those in folders; None: as many as suit the task.

    Files such as a segmenter's masks are written below `out`, RUN/predictions unless given; an image from within a
    folder keeps its place below it. `compare` names labeled data, whose labels are drawn beside the predictions. Before
    the first image is read, `ValueError` is raised where a file would be written twice or over an image, and for `out`
    or `compare` with a task that draws nothing.
    """
    card = read_complete_card(run, trust=trust)
    tell_other_run(run, card)
    student = load_student(run, trust=trust).to(default_device())
    task = find_task(card.task)
    predictor = task.predictor(student, card, run, out)
    for note in predictor.notes:
        tell(f"note: {note}")
    if compare is not None:
        labels = (
            list_labels(forget_columns(card.data, compare, task), compare, card.classes, task) if card.masks else {}
        )
        predictor.compare_with(labels)
    files = list(list_images(images))
    predictor.check(files)
    for file in files:
        with torch.inference_mode():
            try:
                outcome = predictor.predict(file, predictor.default_top if top is None else top)
            except (ValueError, RuntimeError) as error:  # of one image: the others may be sound
                if find_user_line(error):
                    raise
                is_sentence = type(error) is ValueError
                outcome = Unreadable(file.path, str(error) if is_sentence else f"{file.path}: {one_line(error)}")
        yield outcome  # outside the block, so that the caller does not run in inference mode


def list_images(paths: Sequence[Path]) -> Iterator[ImageFile]:
    """The files among `paths`, and the images in its folders, without hidden ones."""
    for path in paths:
        if not path.is_dir():
            yield ImageFile(path, Path(path.stem))
            continue
        inside = [file.relative_to(path) for file in path.rglob("*") if is_image(file.name) and file.is_file()]
        shown = sorted(file for file in inside if not any(map(is_hidden, file.parts)))
        if not shown:
            raise ValueError(f"the folder {path} holds no images")
        yield from (ImageFile(path / file, file.with_suffix("")) for file in shown)


def describe_outcome(outcome: Prediction | Unreadable) -> dict[str, Any]:
    """A prediction, or why there is none, as plain values."""
    if isinstance(outcome, Unreadable):
        return {"image": str(outcome.image), "error": outcome.reason}
    files = {name: str(path) for name, path in outcome.files.items()}
    return {"image": str(outcome.image), "classes": dict(outcome.classes), **files}


def refuse_foreign_table(path: Path) -> None:
    """Raises `ValueError` if a file is there that this command did not write, or none can be."""
    if path.exists() and not path.is_file():  # reading a pipe would wait for its writer
        raise ValueError(f"--csv={path} is a folder, pipe or device; name a file")
    if not path.parent.is_dir():
        raise ValueError(f"--csv={path} lies in a folder that does not exist; create {path.parent} first")
    if path.exists() and not path.read_bytes().startswith(f"{FIRST_COLUMN},class".encode()):
        raise ValueError(f"--csv={path} is there already and is no table of predictions; name another file")


def write_table(path: Path, outcomes: Sequence[Prediction | Unreadable]) -> None:
    """Writes a CSV with a line for each image: class and share, by rank if several were asked for; files; error."""
    rows = []
    ranked = any(isinstance(outcome, Prediction) and len(outcome.classes) > 1 for outcome in outcomes)
    for outcome in outcomes:
        row: dict[str, Any] = {FIRST_COLUMN: str(outcome.image)}
        if isinstance(outcome, Unreadable):
            rows.append({**row, "error": outcome.reason})
            continue
        for rank, (name, share) in enumerate(outcome.classes, 1):
            row |= {f"class_{rank}" if ranked else "class": name, f"share_{rank}" if ranked else "share": share}
        rows.append({**row, **{name: str(file) for name, file in outcome.files.items()}})
    columns = dict.fromkeys(name for row in sorted(rows, key=len, reverse=True) for name in row)
    with replace_file(path) as temporary, temporary.open("w", encoding="utf-8", errors="replace", newline="") as file:
        writer = csv.DictWriter(file, [*columns] if len(columns) > 2 else [FIRST_COLUMN, "class", "error"])
        writer.writeheader()
        writer.writerows(rows)


def tell_files(outcomes: Sequence[Prediction | Unreadable], compare: str | None) -> None:
    """Says where masks and pictures are, and how many images had no label to compare with."""
    written = [outcome.files for outcome in outcomes if isinstance(outcome, Prediction) and outcome.files]
    if not written:
        return
    folders = dict.fromkeys(file.parent for files in written for file in files.values())
    first = next(iter(folders))
    others = f" and {count_of(len(folders) - 1, 'folder')} more" if len(folders) > 1 else ""
    *kinds, last = dict.fromkeys(f"{kind}s" for files in written for kind in files)
    tell(f"{', '.join(kinds)} and {last} of {count_of(len(written), 'image')} are in {first}{others}")
    without = sum("comparison" not in files for files in written)
    if compare is not None and without:
        tell(f"note: {count_of(without, 'image')} of these {'has' if without == 1 else 'have'} no label in {compare}")
