"""Scores of a student that gives every image a class."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_calibration_error

from .calibration import BINS
from .outcomes import find_top_classes
from .scores import ClassificationScores

UNEVEN = 1.5  # times the images of the rarest class, from which the most frequent one makes a set imbalanced


class ClassificationMetric(Metric):
    """`ClassificationScores` of class scores (b, k) and labels (b,), in float32.

    `compute` raises `ValueError` if nothing was added. If a logit is NaN, so are `nll` and `ece`.
    """

    full_state_update = False

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        for name in ("top1", "top5", "nll"):
            self.add_state(name, torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")
        for name in ("class_right", "class_count"):
            self.add_state(name, torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("confidence", [], dist_reduce_fx="cat")
        self.add_state("right", [], dist_reduce_fx="cat")
        self._add_nothing()

    def reset(self) -> None:
        super().reset()
        self._add_nothing()

    def _add_nothing(self) -> None:
        """Adds an empty batch: a process without images must hold the same states when they are gathered."""
        self.update(
            torch.empty(0, self.num_classes, device=self.device), torch.empty(0, dtype=torch.int64, device=self.device)
        )

    def update(self, logits: Float[Tensor, "b k"], target: Int64[Tensor, " b"]) -> None:
        self._check(logits, target)
        logits = logits.float()
        hits = (find_top_classes(logits) == target.unsqueeze(1)).float()
        self.top1 += hits[:, 0].sum()
        self.top5 += hits.sum(dim=1).sum()
        self.nll += F.cross_entropy(logits, target, reduction="none").sum()
        self.count += len(target)
        self.class_right += torch.bincount(target[hits[:, 0] > 0], minlength=self.num_classes)
        self.class_count += torch.bincount(target, minlength=self.num_classes)
        # A hair below 1, because torchmetrics would give a confidence of exactly 1 a sixteenth bin.
        confidence, predicted = logits.softmax(dim=1).clamp(max=1 - torch.finfo(torch.float32).eps).max(dim=1)
        self.confidence.append(confidence)
        self.right.append(predicted == target)

    def _check(self, logits: Tensor, target: Tensor) -> None:
        if logits.shape != (len(target), self.num_classes):
            raise ValueError(
                f"the student's scores have shape {tuple(logits.shape)}, "
                f"and {len(target)} labels of {self.num_classes} classes need ({len(target)}, {self.num_classes})"
            )
        refuse_labels_beyond(target, self.num_classes)

    def compute(self) -> ClassificationScores:
        count = int(self.count)
        if count == 0:
            raise ValueError("there is no image to evaluate on: the loader gave no batch")
        top1, top5, nll = ((total / self.count).item() for total in (self.top1, self.top5, self.nll))
        ece = math.nan if math.isnan(nll) else self._compute_ece()
        return ClassificationScores(top1, top5, nll, ece, count, self._compute_balanced_accuracy())

    def _compute_balanced_accuracy(self) -> float | None:
        """The mean recall of the classes that have images; None where that is as good as top-1."""
        shown = self.class_count > 0
        counts = self.class_count[shown].double()
        if counts.max() < UNEVEN * counts.min():
            return None
        return (self.class_right[shown] / counts).mean().item()

    def _compute_ece(self) -> float:
        confidence, right = (
            torch.cat(values) if isinstance(values, list) else values for values in (self.confidence, self.right)
        )
        # The confidence is the probability of a binary event: the prediction is correct.
        return binary_calibration_error(confidence, right.long(), n_bins=BINS, norm="l1", validate_args=False).item()


def refuse_labels_beyond(target: Tensor, num_classes: int) -> None:
    """Raises `ValueError` for class indices outside 0 .. num_classes - 1."""
    low, high = (int(target.min()), int(target.max())) if len(target) else (0, 0)
    if low < 0 or high >= num_classes:
        raise ValueError(f"the labels run from {low} to {high}, and the student's from 0 to {num_classes - 1}")
