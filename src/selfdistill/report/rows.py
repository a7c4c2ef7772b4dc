"""What each test image says of each run: the rows from which paired differences get their intervals.

Scores that are no mean over images (IoU, average precision, the NLL of labeled pixels) are linearized, see
`statistics.linearize_ratio`.
So every score is a mean over rows here, and one kind of interval serves all of them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from .finished import FinishedRun
from .statistics import Floats, bootstrap_iou, bootstrap_mean, linearize_ap, linearize_ratio


class RunRows(NamedTuple):
    """The rows of one run."""

    main: Floats  # (n,): whether the image is right, or what it says of the mean IoU or average precision
    nll: Floats  # (n,), nats
    nll_at_temperature: Floats | None  # (n,), nats; None where class scores were not kept
    labels: np.ndarray  # (n,) or (n, k): what the images must share to be the same ones
    classes: Floats  # (n, k): what each image says of each class's IoU or average precision; empty of one class each
    counts: tuple[Floats, Floats] | None  # (n, k) pixels of intersection and union; None of whole images


def read_rows(run: FinishedRun, split: str | None) -> RunRows | None:
    """The rows of a run on a split; None where it wrote none."""
    outcomes = run.read_outcomes(split)
    if outcomes is None:
        return None
    if "shown" in outcomes._fields:
        return _read_shown(outcomes, run.end.temperature)
    return _read_pixels(outcomes) if "intersection" in outcomes._fields else _read_images(outcomes, run.end.temperature)


def _read_images(outcomes: Any, temperature: float | None) -> RunRows:
    calibrated = None
    if outcomes.logits is not None and temperature:
        scores = outcomes.logits / temperature
        calibrated = torch.nn.functional.cross_entropy(scores, outcomes.label, reduction="none").double().numpy()
    labels = outcomes.label.numpy()
    right = (outcomes.predicted == outcomes.label).double().numpy()
    return RunRows(right, outcomes.nll.double().numpy(), calibrated, labels, np.empty((len(labels), 0)), None)


def _read_shown(outcomes: Any, temperature: float | None) -> RunRows:
    shown = outcomes.shown.numpy()
    classes = linearize_ap(outcomes.logits.double().numpy(), shown)
    occurring = classes[:, ~np.isnan(classes).any(0)]
    nll, calibrated = outcomes.nll.double().numpy(), None
    known = shown >= 0
    count = known.sum(1, keepdims=True)
    if temperature:
        scores, labels = outcomes.logits.double() / temperature, outcomes.shown.double()
        losses = torch.nn.functional.binary_cross_entropy_with_logits(scores, labels, reduction="none").numpy()
        calibrated = (losses * known).sum(1) / count[:, 0].clip(min=1)
    if not known.all():  # then the scores are no means over images
        nll, calibrated = (
            None if values is None else linearize_ratio(values[:, None] * count, count)[:, 0]
            for values in (nll, calibrated)
        )
    return RunRows(occurring.mean(1), nll, calibrated, shown, classes, None)


def _read_pixels(outcomes: Any) -> RunRows:
    intersection, predicted, labeled = (
        value.double().numpy() for value in (outcomes.intersection, outcomes.predicted, outcomes.labeled)
    )
    union = predicted + labeled - intersection
    classes = linearize_ratio(intersection, union)
    occurring = classes[:, ~np.isnan(classes).any(0)]
    nll = linearize_ratio(outcomes.nll.double().numpy()[:, None], labeled.sum(1, keepdims=True))[:, 0]
    return RunRows(occurring.mean(1), nll, None, labeled, classes, (intersection, union))


class PairedRows(NamedTuple):
    """The rows of two arms, whose runs of one seed stand at the same place."""

    baseline: list[RunRows]
    arm: list[RunRows]

    def subtract(self, name: str) -> Floats | None:
        """The differences (seeds, n) of one kind of row; None where a run lacks it."""
        pairs = [(getattr(one, name), getattr(other, name)) for one, other in zip(self.arm, self.baseline, strict=True)]
        if any(one is None or other is None for one, other in pairs):
            return None
        return np.stack([one - other for one, other in pairs])

    @property
    def num_classes(self) -> int:
        """The number of classes, as far as the images have them."""
        first = self.arm[0]
        return first.classes.shape[1] or int(first.labels.max()) + 1

    def subtract_class(self, number: int) -> Floats:
        """The differences (seeds, m) of one class: over the m images of it, or in what all images say of its IoU."""
        if not self.arm[0].classes.shape[1]:
            return self.subtract("main")[:, self.arm[0].labels == number]  # type: ignore[index]
        return self.subtract("classes")[:, :, number]  # type: ignore[index]

    def bootstrap(self, confidence: float) -> tuple[float, float]:
        """The interval of the main score's difference, averaged over seeds, by resampling test images."""
        if self.arm[0].counts is None:
            return bootstrap_mean(self.subtract("main").mean(0), confidence)  # type: ignore[union-attr]
        stacked = [
            np.stack([rows.counts[kind] for rows in runs])  # type: ignore[index]
            for runs in (self.arm, self.baseline)
            for kind in range(2)
        ]
        return bootstrap_iou(*stacked, confidence)


def pair_rows(baseline: Sequence[RunRows | None], arm: Sequence[RunRows | None]) -> PairedRows | None:
    """The rows of the runs of two arms in the same order of seeds; None unless all have rows of the same images."""
    runs = [*baseline, *arm]
    known = [rows for rows in runs if rows is not None]
    if len(known) < len(runs) or not runs:
        return None
    if any(not np.array_equal(rows.labels, known[0].labels) for rows in known):
        return None
    return PairedRows(known[: len(baseline)], known[len(baseline) :])
