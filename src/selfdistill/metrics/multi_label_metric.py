"""Scores of a student that says of each class whether an image shows it."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from torchmetrics import Metric

from .calibration import calibration_error, sum_bins
from .multi_label import HALF, UNKNOWN, average_precision, f1_scores
from .scores import MultiLabelScores


class MultiLabelMetric(Metric):
    """`MultiLabelScores` of class scores (b, k) and labels (b, k) of zeros and ones, in float32.

    `ignore_index` stands where a label is not known. It keeps all scores. `thresholds` are probabilities, one for each
    class. `compute` raises `ValueError` if nothing was added. If a logit is NaN, so are all scores of it.
    """

    full_state_update = False

    def __init__(
        self, num_classes: int, *, thresholds: Sequence[float] | None = None, ignore_index: int = -100
    ) -> None:
        super().__init__()
        self.num_classes, self.thresholds, self.ignore_index = num_classes, thresholds, ignore_index
        for name in ("logits", "target"):
            self.add_state(name, [], dist_reduce_fx="cat")
        self._add_nothing()

    def reset(self) -> None:
        super().reset()
        self._add_nothing()

    def _add_nothing(self) -> None:
        """Adds an empty batch: a process without images must hold the same states when they are gathered."""
        shape = (0, self.num_classes)
        self.update(torch.empty(shape, device=self.device), torch.empty(shape, dtype=torch.int64, device=self.device))

    def update(self, logits: Float[Tensor, "b k"], target: Int64[Tensor, "b k"]) -> None:
        wanted = (len(target), self.num_classes)
        if tuple(target.shape) != wanted or tuple(logits.shape) != wanted:
            raise ValueError(
                f"scores {tuple(logits.shape)} and labels {tuple(target.shape)} must be (b, {self.num_classes}): 0 or "
                f"1 for each class of each image"
            )
        known = target != self.ignore_index
        if target.is_floating_point() or not bool(((target == 0) | (target == 1) | ~known).all()):
            raise ValueError(
                f"labels must be integers, 1 where an image shows a class, 0 where it does not, and "
                f"{self.ignore_index} where that is not known"
            )
        self.logits.append(logits.float())
        self.target.append(target.where(known, UNKNOWN).to(torch.int8))

    def compute(self) -> MultiLabelScores:
        logits, target = (
            torch.cat(values) if isinstance(values, list) else values for values in (self.logits, self.target)
        )
        if not len(target):
            raise ValueError("there is no image to evaluate on: the loader gave no batch")
        logits, target = logits.double(), target.long()
        ap = [average_precision(logits[:, k], target[:, k]) for k in range(self.num_classes)]
        f1 = f1_scores(logits, target, [HALF] * self.num_classes)
        chosen = (None, None) if self.thresholds is None else f1_scores(logits, target, self.thresholds)
        scores, labels = logits[target >= 0], target[target >= 0]
        return MultiLabelScores(
            torch.tensor(ap, dtype=torch.float64).nanmean().item(),
            *f1,
            nll=F.binary_cross_entropy_with_logits(scores, labels.double()).item(),
            ece=calibration_error(*sum_bins(scores.sigmoid(), labels > 0)).item(),
            ap=tuple(ap),
            count=len(target),
            thresholds_f1_macro=chosen[0],
            thresholds_f1_micro=chosen[1],
        )
