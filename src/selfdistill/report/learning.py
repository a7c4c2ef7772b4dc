"""Whether a run was still learning when it ended, so that more epochs come before a better method."""

import math
from collections.abc import Sequence

import numpy as np

from ..runs.records import EpochRecord
from .finished import FinishedRun

RISE = 0.01  # of the main score over the last third of the epochs, at least
GAP = 0.10  # of the training images' score over the held-out one, at most: beyond, more epochs overfit
LEARNT = 0.95  # of the training images' score, at most: beyond, there is nothing left to learn
RULE = (
    "An arm is still learning if its held-out score rose by a point or more over the last third of its epochs, and its"
    f" score on training images is below {100 * LEARNT:.0f} % and at most {100 * GAP:.0f} points above that one."
)


def is_still_learning(runs: Sequence[FinishedRun]) -> bool | None:
    """Whether `RULE` holds for the means over an arm's runs; None where they did not record enough to say."""
    if not runs or any(run.end.train_scores is None or run.end.scores is None for run in runs):
        return None
    rises = [measure_rise(run) for run in runs]
    if any(math.isnan(rise) for rise in rises):
        return None
    train, held_out = (
        float(np.mean([scores.main for scores in side]))
        for side in ([run.end.train_scores for run in runs], [run.end.scores for run in runs])
    )
    return float(np.mean(rises)) >= RISE and train <= LEARNT and train - held_out <= GAP


def measure_rise(run: FinishedRun) -> float:
    """By how much the line through the scores of a run's last third of epochs rises; NaN for fewer than two scores."""
    points = [
        (record.epoch, record.scores.main)
        for record in run.records()
        if isinstance(record, EpochRecord) and record.epoch > 2 * run.end.epoch / 3
    ]
    if len(points) < 2:
        return math.nan
    epochs, scores = np.array(points, dtype=np.float64).T
    slope = float(np.polyfit(epochs, scores, 1)[0]) if np.ptp(epochs) else math.nan
    return slope * run.end.epoch / 3
