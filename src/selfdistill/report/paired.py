"""The paired comparison of an arm with its baseline: `row["statistics"]` of a comparison, as plain values.

Runs are paired by seed: they began with the same weights and saw the same images in the same order. Differences of
shares are in points (hundredths), those of NLL in nats. An interval is a mapping of mean, low, high, p and
standard_error; None where it is not known.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..runs.student import read_card
from ..tasks.base import Column
from .finished import FinishedRun
from .rows import PairedRows, RunRows, pair_rows, read_rows
from .statistics import CONFIDENCE, Estimate, compare_both, compare_pairs, measure_row_error

POINTS = 100.0

Statistics = dict[str, Any]
Value = Callable[[FinishedRun], float | None]


class Arm(NamedTuple):
    """The runs of an arm by seed, and what each test image says of them."""

    name: str
    runs: dict[int, FinishedRun]  # of several runs of one seed, the last
    rows: dict[int, RunRows | None]
    split: str | None


def read_arm(name: str, runs: Sequence[FinishedRun], split: str | None) -> Arm:
    by_seed = {run.seed: run for run in runs}
    return Arm(name, by_seed, {seed: read_rows(run, split) for seed, run in by_seed.items()}, split)


def measure_test_error(arm: Arm) -> float | None:
    """The standard error of an arm's main score, in points, that comes from the choice of test images."""
    rows = [rows.main for rows in arm.rows.values() if rows is not None]
    if not rows or len(rows) < len(arm.rows) or len({len(values) for values in rows}) > 1:
        return None
    error = POINTS * measure_row_error(np.stack(rows))
    return None if math.isnan(error) else error


def compare_arms(baseline: Arm, arm: Arm, columns: Sequence[Column], confidence: float = CONFIDENCE) -> Statistics:
    """The statistics of an arm against a baseline; the first column is the main score.

    `interval` is what verdicts rest on: over seeds and test images where the runs wrote what they answered for each
    image, else over seeds alone, as `basis` says.
    """
    main, *others = columns
    seeds = [seed for seed in arm.runs if seed in baseline.runs]
    pairs = Pairs(baseline, arm, seeds)
    differences = pairs.subtract(_get(main.score, arm.split), POINTS)
    values = [value for value in differences if value is not None]
    rows = pair_rows([baseline.rows[seed] for seed in seeds], [arm.rows[seed] for seed in seeds])
    over_seeds = compare_pairs(values, confidence) if len(values) == len(differences) else None
    over_both = _scale(_compare_rows(rows, "main", confidence), POINTS)
    over_rows = None if rows is None else [POINTS * bound for bound in rows.bootstrap(confidence)]
    chosen = over_both or over_seeds
    return {
        "against": baseline.name,
        "seeds": seeds,
        "differences": differences,
        "mean": float(np.mean(values)) if values else None,
        "sd": float(np.std(values, ddof=1)) if len(values) > 1 else None,
        "won": sum(value > 0 for value in values),
        "tied": sum(value == 0 for value in values),
        "images": None if rows is None else len(rows.arm[0].main),
        "basis": None if chosen is None else "seeds and test images" if over_both else "seeds",
        "interval": describe(chosen),
        "over_seeds": describe(over_seeds),
        "over_images": over_rows,
        "image_error": None if rows is None else POINTS * measure_row_error(rows.subtract("main")),
        "effects": {**pairs.compare_others(others, rows, confidence), **compare_calibrated(pairs, rows, confidence)},
        "classes": compare_classes(pairs, rows, confidence),
    }


def describe(estimate: Estimate | None) -> dict[str, float] | None:
    """An interval as plain values."""
    return None if estimate is None else estimate._asdict()


class Pairs(NamedTuple):
    """Two arms, and the seeds that both have."""

    baseline: Arm
    arm: Arm
    seeds: list[int]

    def subtract(self, value: Value, scale: float = 1.0) -> list[float | None]:
        """The difference for each seed; None where it is not known."""
        pairs = [(value(self.arm.runs[seed]), value(self.baseline.runs[seed])) for seed in self.seeds]
        known = [None if None in pair or any(map(math.isnan, pair)) else scale * (pair[0] - pair[1]) for pair in pairs]
        return [None if difference is None else float(difference) for difference in known]

    def compare(self, value: Value, scale: float, confidence: float) -> Statistics:
        """The differences of a value, their mean and their interval over seeds."""
        differences = self.subtract(value, scale)
        known = [difference for difference in differences if difference is not None]
        interval = compare_pairs(known, confidence) if len(known) == len(differences) else None
        mean = float(np.mean(known)) if known else None
        return {"differences": differences, "mean": mean, "interval": describe(interval), "basis": "seeds"}

    def compare_others(self, columns: Sequence[Column], rows: PairedRows | None, confidence: float) -> Statistics:
        """The effects on the further scores, by name. Only NLL is a mean over images; the others are over seeds."""
        effects = {}
        for column in columns:
            effects[column.score] = self.compare(_get(column.score, self.arm.split), column.scale, confidence)
            if column.score == "nll":
                _put_rows(effects[column.score], _compare_rows(rows, "nll", confidence))
        return effects


def compare_calibrated(pairs: Pairs, rows: PairedRows | None, confidence: float) -> Statistics:
    """The effect on the NLL at the fitted temperatures."""
    effect = pairs.compare(lambda run: run.get_nll_at_temperature(pairs.arm.split), 1.0, confidence)
    _put_rows(effect, _compare_rows(rows, "nll_at_temperature", confidence))
    return {"nll_at_temperature": effect}


def compare_classes(pairs: Pairs, rows: PairedRows | None, confidence: float) -> dict[str, Statistics]:
    """The effect on the accuracy or IoU of each class, in points, by the class's name."""
    if rows is None:
        return {}
    classes = {}
    for number, name in enumerate(_name_classes(pairs.arm.runs[pairs.seeds[0]], rows.num_classes)):
        differences = rows.subtract_class(number)
        if differences.size and not np.isnan(differences).any():
            interval = _scale(compare_both(differences, confidence), POINTS)
            classes[name] = {"mean": POINTS * float(differences.mean()), "interval": describe(interval)}
            if rows.arm[0].counts is None:
                classes[name]["images"] = differences.shape[1]
    return classes


def _name_classes(run: FinishedRun, count: int) -> Sequence[str]:
    """The names of the classes, or their numbers where the student's card is missing or damaged."""
    try:
        classes = read_card(run.run.path, trust=True).classes  # names are text; nothing is built from them
    except ValueError:
        classes = ()
    return classes if len(classes) >= count else [str(number) for number in range(count)]


def _get(score: str, split: str | None) -> Value:
    def get(run: FinishedRun) -> float | None:
        scores = run.get_scores(split)
        return None if scores is None else scores._asdict().get(score)

    return get


def _compare_rows(rows: PairedRows | None, name: str, confidence: float) -> Estimate | None:
    differences = None if rows is None else rows.subtract(name)
    return None if differences is None else compare_both(differences, confidence)


def _put_rows(effect: Statistics, estimate: Estimate | None) -> None:
    """Replaces the interval over seeds by the one over seeds and test images."""
    if estimate is not None:
        effect |= {"interval": describe(estimate), "basis": "seeds and test images"}


def _scale(estimate: Estimate | None, scale: float) -> Estimate | None:
    if estimate is None:
        return None
    lengths = {name: scale * getattr(estimate, name) for name in ("mean", "low", "high", "standard_error")}
    return estimate._replace(**lengths)
