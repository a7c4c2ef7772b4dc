"""How honest the probabilities are."""

import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..elements import Element
from ..evidence import Arm, Evidence
from ..figures.reliability import Reliability, draw_reliability
from .blocks import captioned, figures, section, table

BINS = 15


def draw_calibration(evidence: Evidence) -> Element | None:
    """Reliability diagrams of each shown arm beside the baseline, and NLL before and after one temperature."""
    baseline = evidence.baseline
    pairs = [[arm for arm in (baseline, other) if arm] for other in evidence.shown] or [[baseline]]
    drawn = []
    for pair in pairs:
        arms = [sum_bins(arm) for arm in pair if arm is not None and arm.outcomes]
        if arms and arms[-1].name == pair[-1].name:
            title = " and ".join(arm.name for arm in arms)
            drawn.append(
                captioned(draw_reliability(arms, f"Reliability of {title}"), f"reliability-{arms[-1].name}", title)
            )
    rows = [row for arm in evidence.arms if (row := _describe_temperatures(arm))]
    if not drawn and not rows:
        return None
    lead = (
        "Points on the dotted diagonal are honest: of the predictions that claim 80 %, 80 % are right. Below it, "
        "probabilities are too high. Bars show how many predictions have each confidence; points stand for ten or more."
    )
    titles = ["arm", "NLL, nats", "temperature", "NLL at temperature", "ECE, %"]
    caption = "Negative log-likelihood before and after dividing scores by one temperature, fitted on validation images"
    return section(
        "calibration",
        "Are the probabilities honest?",
        lead if drawn else "",
        figures(drawn) if drawn else None,
        table(titles, rows, caption) if rows else None,
    )


def sum_bins(arm: Arm) -> Reliability:
    """Predictions by confidence, over all seeds of an arm."""
    parts = [_bin(outcomes) for outcomes in arm.outcomes.values()]
    count, hits, confidence = (np.sum([part[index] for part in parts], axis=0) for index in range(3))
    return Reliability(arm.name, arm.number, count, hits, confidence)


def _bin(outcomes: Any) -> Sequence[np.ndarray]:
    """Count, right ones, and sum of confidences in each bin."""
    if hasattr(outcomes, "bin_count"):
        return [
            outcomes.bin_count.numpy().sum(0),
            outcomes.bin_hits.numpy().sum(0),
            outcomes.bin_confidence.numpy().sum(0),
        ]
    known = outcomes.confidence.isfinite()  # a network that diverged gives NaN
    confidence = outcomes.confidence[known].double().numpy()
    right = (outcomes.predicted == outcomes.label)[known].numpy()
    bins = (confidence * BINS).astype(int).clip(0, BINS - 1)
    return [
        np.bincount(bins, minlength=BINS),
        np.bincount(bins[right], minlength=BINS),
        np.bincount(bins, weights=confidence, minlength=BINS),
    ]


def _describe_temperatures(arm: Arm) -> list[str] | None:
    runs = [run for run in arm.finished if {"nll", "ece"} <= run.scores.keys()]
    if not runs:
        return None
    nll, ece = ([run.scores[name] for run in runs] for name in ("nll", "ece"))
    temperatures = [run.end.temperature for run in runs if run.end and run.end.temperature is not None]
    after = [run.nll_at_temperature for run in runs if run.nll_at_temperature is not None]
    return [
        arm.name,
        f"{statistics.fmean(nll):.3f}",
        f"{statistics.fmean(temperatures):.2f}" if temperatures else "–",
        f"{statistics.fmean(after):.3f}" if after else "–",
        f"{100 * statistics.fmean(ece):.1f}",
    ]
