"""Where runs are that are still going on, from their logs."""

import math
import time
from collections.abc import Sequence
from typing import NamedTuple

from ..runs.folder import Run
from ..runs.records import AnyRecord, EndRecord, EpochRecord, TrainRecord
from ..tasks import rate_scores
from .elements import Element
from .sections.blocks import section, table

QUIET = 600  # seconds without a new line, after which a run may have been stopped


class Progress(NamedTuple):
    """How far a run is."""

    name: str
    state: str  # in words
    epoch: str  # "3 of 10"
    left: float | None  # seconds of training, evaluation aside; None where that is not known
    score: str  # the last one
    best: str  # and the epoch it was reached in
    losses: str  # the last ones


def read_progress(run: Run, records: Sequence[AnyRecord]) -> Progress:
    """How far a run is, by its recipe and its log."""
    recipe = run.recipe(trust=True)  # shown, not built
    trained = [record for record in records if isinstance(record, TrainRecord)]
    scored = [record for record in records if isinstance(record, EpochRecord) and record.scores is not None]
    has_ended = bool(records) and isinstance(records[-1], EndRecord)
    best = max(scored, key=lambda record: rate_scores(record.scores, recipe.best_by), default=None)
    epoch = records[-1].epoch if records else 0
    return Progress(
        name=run.path.name,
        state="ended" if has_ended else _describe_age(run) if records else "has not begun",
        epoch=f"{epoch} of {recipe.epochs}" if recipe.epochs else f"step {records[-1].step if records else 0}",
        left=None if has_ended else estimate_seconds(trained, scored, recipe.epochs, recipe.max_steps),
        score=scored[-1].scores.sentence() if scored else "",
        best=f"{abs(rate_scores(best.scores, recipe.best_by)):.4g} after epoch {best.epoch}" if best else "",
        losses="  ".join(f"{name} {value:.4g}" for name, value in trained[-1].losses.items()) if trained else "",
    )


def _describe_age(run: Run) -> str:
    """How long ago the log grew."""
    age = time.time() - (run.path / "metrics.jsonl").stat().st_mtime
    if age < QUIET:
        return "going on"
    return f"no new line for {age / 60:.0f} min"


def estimate_seconds(
    trained: Sequence[TrainRecord], scored: Sequence[EpochRecord], epochs: int | None, max_steps: int | None
) -> float | None:
    """Seconds of training that are left; None before an epoch was scored, where only its end tells its steps."""
    last = max_steps
    if epochs is not None and scored:
        whole = scored[0].step / scored[0].epoch * epochs
        last = round(whole if max_steps is None else min(whole, max_steps))
    paces = sorted(record.seconds_per_step for record in trained if math.isfinite(record.seconds_per_step))
    if last is None or not paces:
        return None
    return max(last - trained[-1].step, 0) * paces[len(paces) // 2]


def describe_seconds(seconds: float | None) -> str:
    """A time in a unit that suits it.

    >>> describe_seconds(None), describe_seconds(90.0), describe_seconds(7200.0)
    ('', '90 s', '2.0 h')
    """
    if seconds is None:
        return ""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 60:.0f} min" if seconds > 120 else f"{seconds:.0f} s"


def draw_progress(runs: Sequence[Progress]) -> Element:
    """A section with a row for each run."""
    titles = ("run", "state", "epoch", "training left", "last scores", "best so far", "last losses")
    rows = [[run.name, run.state, run.epoch, describe_seconds(run.left), *run[4:]] for run in runs]
    return section("progress", "Progress", "", table(titles, rows, "Runs as their logs are now", kind="words"))
