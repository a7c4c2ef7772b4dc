"""Scores of a plain student on labelled images: `evaluate`, and what each kind of task is scored by."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ..errors import nearest
from ..features.modes import set_mode
from .segmentation import BINS, DenseScores, DenseTally


class Scores(NamedTuple):
    """How well a student labels `count` images."""

    top1: float  # share in [0, 1] whose label has the highest score
    top5: float  # share whose label is among the five highest, or among all where there are fewer classes
    nll: float  # mean negative log-likelihood of the label, in nats
    ece: float  # expected calibration error of the highest probability: l1, 15 bins, in [0, 1]
    count: int

    @property
    def main(self) -> float:
        """What chooses the best of several students, higher is better."""
        return self.top1

    @property
    def finite(self) -> bool:
        return math.isfinite(self.nll)

    def sentence(self) -> str:
        return f"top-1 {self.top1:.2%}  top-5 {self.top5:.2%}  nll {self.nll:.4f}  ece {self.ece:.4f}"


def evaluate(
    student: nn.Module,
    batches: Iterable[Any],
    *,
    num_classes: int,
    kind: str = "classification",
    void: int = -100,
    window: tuple[int, int] | None = None,
    device: str | torch.device = "cpu",
    precision: torch.dtype | None = None,
) -> Scores | DenseScores:
    """The student's scores on everything that `batches` yields, which must have `.images` and `.target`.

    `kind` is the task's: of "classification" the targets are (b,) and the result is `Scores`; of "segmentation" they
    are (b, H, W), whatever the images' height and width, pixels of `void` count for nothing, and it is `DenseScores`,
    of windows of so many pixels (height, width) where a `window` is given (see `windows.score_map`).
    `precision` bfloat16 or float16 runs the student under autocast; the scores are computed in float32 all the same.
    Where torch.distributed is initialised every process gives its own rows, possibly none, and all get the scores of
    all rows. Where any labelled logit is not a number, `nll` and `ece` are nan.
    """
    if kind not in TALLIES:
        raise ValueError(f"kind={kind!r} is no kind of task{nearest(kind, TALLIES)}")
    device = torch.device(device)
    half = precision in (torch.bfloat16, torch.float16)
    tally = TALLIES[kind](num_classes, void=void, window=window, device=device)
    with set_mode(student, training=False), torch.no_grad():
        for batch in batches:
            with torch.autocast(device.type, dtype=precision if half else None, enabled=half):
                logits = tally.logits(student, batch.images.to(device, non_blocking=True), batch.target)
            tally.check(logits, batch.target)
            tally.add(logits.float(), batch.target.to(device, non_blocking=True))
    return tally.scores()


def restored(values: Mapping[str, Any]) -> Scores | DenseScores:
    """Scores from the names and values that `_asdict` gave, as a run's records hold them."""
    kind = next(kind for kind in (Scores, DenseScores) if kind._fields[0] in values)
    return kind(**values)


class RowTally:
    """Running sums from which `Scores` follow, on the device."""

    def __init__(self, num_classes: int, *, void: int, window: tuple[int, int] | None, device: torch.device) -> None:
        if window is not None:
            raise ValueError(f"window={window} has no effect: only segmentation looks at an image window by window")
        from torchmetrics import MeanMetric, SumMetric
        from torchmetrics.classification import MulticlassCalibrationError

        self.num_classes = num_classes
        kept = float("nan")  # what a nan is replaced with: by default the metric drops the row and warns
        metrics = {name: MeanMetric(nan_strategy=kept) for name in ("top1", "top5", "nll")}
        metrics["ece"] = MulticlassCalibrationError(num_classes, n_bins=BINS, norm="l1", validate_args=False)
        metrics["count"] = SumMetric()
        self.metrics: dict[str, Any] = {name: metric.to(device) for name, metric in metrics.items()}
        # A process without rows takes part too when the metrics are added up, and must hold what the others hold.
        self.add(torch.empty(0, num_classes, device=device), torch.empty(0, dtype=torch.int64, device=device))

    def logits(self, student: nn.Module, images: Tensor, target: Tensor) -> Tensor:
        return student(images)

    def check(self, logits: Tensor, target: Tensor) -> None:
        if logits.shape != (len(target), self.num_classes):
            raise ValueError(
                f"the student's scores have shape {tuple(logits.shape)}, "
                f"and {len(target)} labels of {self.num_classes} classes need ({len(target)}, {self.num_classes})"
            )
        low, high = (int(target.min()), int(target.max())) if len(target) else (0, 0)
        if low < 0 or high >= self.num_classes:
            raise ValueError(f"the labels run from {low} to {high}, and the student's from 0 to {self.num_classes - 1}")

    def add(self, logits: Float[Tensor, "b k"], target: Int64[Tensor, " b"]) -> None:
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices
        hits = (best == target.unsqueeze(1)).float()
        self.metrics["top1"].update(hits[:, 0])
        self.metrics["top5"].update(hits.sum(dim=1))
        self.metrics["nll"].update(F.cross_entropy(logits, target, reduction="none"))
        # A hair below 1, because the metric would give a confidence of exactly 1 a sixteenth bin of its own.
        self.metrics["ece"].update(logits.softmax(dim=1).clamp(max=1 - torch.finfo(torch.float32).eps), target)
        self.metrics["count"].update(torch.ones_like(target, dtype=torch.float32))

    def scores(self) -> Scores:
        """Of everything that was added, by all processes together; raises `ValueError` where that is nothing."""
        found = {name: metric.compute().item() for name, metric in self.metrics.items()}
        count = round(found.pop("count"))
        if count == 0:
            raise ValueError("there is no image to evaluate on: the loader gave no batch")
        if found["nll"] != found["nll"]:
            found["ece"] = float("nan")  # the metric takes a confidence that is no number for 0
        return Scores(**found, count=count)


TALLIES: dict[str, type[RowTally] | type[DenseTally]] = {"classification": RowTally, "segmentation": DenseTally}
