"""Scores of a plain student on labelled images."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

BINS = 15  # of the calibration error, of equal width


class Scores(NamedTuple):
    """How well a student labels `count` images."""

    top1: float  # share in [0, 1] whose label has the highest score
    top5: float  # share whose label is among the five highest, or among all where there are fewer classes
    nll: float  # mean negative log-likelihood of the label, in nats
    ece: float  # expected calibration error of the highest probability: l1, 15 bins, in [0, 1]
    count: int


def evaluate(
    student: nn.Module,
    batches: Iterable[Any],
    *,
    num_classes: int,
    device: str | torch.device = "cpu",
    precision: torch.dtype | None = None,
) -> Scores:
    """The student's scores on everything that `batches` yields, which must have `.images` and `.target`.

    `precision` bfloat16 or float16 runs the student under autocast; the scores are computed in float32 all the same.
    Where torch.distributed is initialised every process gives its own rows, possibly none, and all get the scores of
    all rows. Where any logit is not a number, `nll` and `ece` are nan.
    """
    device = torch.device(device)
    half = precision in (torch.bfloat16, torch.float16)
    metrics = _metrics(num_classes, device)
    # A process without rows takes part too when the metrics are added up, and must hold what the others hold.
    _add(metrics, torch.empty(0, num_classes, device=device), torch.empty(0, dtype=torch.int64, device=device))
    with evaluating(student), torch.no_grad():
        for batch in batches:
            with torch.autocast(device.type, dtype=precision if half else None, enabled=half):
                logits = student(batch.images.to(device, non_blocking=True))
            target = _checked(batch.target, logits, num_classes).to(device, non_blocking=True)
            _add(metrics, logits.float(), target)
    return _scores(metrics)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every submodule is in the mode it was in, also where they differed."""
    modes = {part: part.training for part in module.modules()}
    try:
        module.eval()
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def _metrics(num_classes: int, device: torch.device) -> dict[str, Any]:
    from torchmetrics import MeanMetric, SumMetric
    from torchmetrics.classification import MulticlassCalibrationError

    kept = float("nan")  # what a nan is replaced with: by default the metric drops the row and warns
    metrics = {name: MeanMetric(nan_strategy=kept) for name in ("top1", "top5", "nll")}
    metrics["ece"] = MulticlassCalibrationError(num_classes, n_bins=BINS, norm="l1", validate_args=False)
    metrics["count"] = SumMetric()
    return {name: metric.to(device) for name, metric in metrics.items()}


def _add(metrics: dict[str, Any], logits: Float[Tensor, "b k"], target: Int64[Tensor, " b"]) -> None:
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices
    hits = (best == target.unsqueeze(1)).float()
    metrics["top1"].update(hits[:, 0])
    metrics["top5"].update(hits.sum(dim=1))
    metrics["nll"].update(F.cross_entropy(logits, target, reduction="none"))
    # A hair below 1, because the metric would give a confidence of exactly 1 a sixteenth bin of its own.
    metrics["ece"].update(logits.softmax(dim=1).clamp(max=1 - torch.finfo(torch.float32).eps), target)
    metrics["count"].update(torch.ones_like(target, dtype=torch.float32))


def _checked(target: Tensor, logits: Tensor, num_classes: int) -> Tensor:
    if logits.shape != (len(target), num_classes):
        raise ValueError(
            f"the student's scores have shape {tuple(logits.shape)}, "
            f"and {len(target)} labels of {num_classes} classes need ({len(target)}, {num_classes})"
        )
    low, high = (int(target.min()), int(target.max())) if len(target) else (0, 0)
    if low < 0 or high >= num_classes:
        raise ValueError(f"the labels run from {low} to {high}, and the student's from 0 to {num_classes - 1}")
    return target


def _scores(metrics: dict[str, Any]) -> Scores:
    found = {name: metric.compute().item() for name, metric in metrics.items()}
    count = round(found.pop("count"))
    if count == 0:
        raise ValueError("there is no image to evaluate on: the loader gave no batch")
    if found["nll"] != found["nll"]:
        found["ece"] = float("nan")  # the metric takes a confidence that is no number for 0
    return Scores(**found, count=count)
