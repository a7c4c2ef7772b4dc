"""Scores of a student that says of each class whether an image shows it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor
from torchmetrics import Metric

from ..distributed import gather_parts, sum_over_processes
from .calibration import BINS, calibration_error, sum_bins
from .outcomes import KEPT_SCORES, Collector, LabeledScores, MultiLabelOutcomes, interleave

HALF = 0.5  # the threshold of every class unless others are chosen


class MultiLabelScores(NamedTuple):
    """Scores of a student on `count` images that show any number of classes.

    Means over classes leave out those that no image shows.
    """

    map: float  # mean average precision: the mean of `ap` over classes, in [0, 1]
    f1_macro: float  # mean over classes of the F1 score, where probabilities from 0.5 on say yes
    f1_micro: float  # F1 score of all answers together
    nll: float  # binary cross-entropy in nats, mean over classes and images
    ece: float  # expected calibration error of the probabilities of all classes: l1, 15 bins, in [0, 1]
    ap: tuple[float, ...]  # average precision of each class; NaN if no image shows it
    count: int  # type: ignore[assignment]  # tuples have a method of this name
    thresholds_f1_macro: float | None = None  # both F1 scores at the thresholds of the run; None: there are none
    thresholds_f1_micro: float | None = None

    @property
    def main(self) -> float:
        """The score that chooses the best of several students; higher is better."""
        return self.map

    @property
    def finite(self) -> bool:
        return math.isfinite(self.nll)

    def sentence(self) -> str:
        f1 = f"F1 {self.f1_macro:.2%} (macro) {self.f1_micro:.2%} (micro)"
        if self.thresholds_f1_macro is not None:
            f1 += f"  at thresholds {self.thresholds_f1_macro:.2%} {self.thresholds_f1_micro:.2%}"
        return f"mAP {self.map:.2%}  {f1}  nll {self.nll:.4f}  ece {self.ece:.4f}"


class MultiLabelMetric(Metric):
    """`MultiLabelScores` of class scores (b, k) and labels (b, k) of zeros and ones, in float32.

    It keeps all scores. `thresholds` are probabilities, one for each class. `compute` raises `ValueError` if nothing
    was added. If a logit is NaN, so are all scores of it.
    """

    full_state_update = False

    def __init__(self, num_classes: int, *, thresholds: Sequence[float] | None = None) -> None:
        super().__init__()
        self.num_classes, self.thresholds = num_classes, thresholds
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
        if target.is_floating_point() or not bool(((target == 0) | (target == 1)).all()):
            raise ValueError("labels must be integers, 1 where an image shows a class, else 0")
        self.logits.append(logits.float())
        self.target.append(target.to(torch.uint8))

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
        probabilities = logits.sigmoid().flatten()
        return MultiLabelScores(
            torch.tensor(ap, dtype=torch.float64).nanmean().item(),
            *f1,
            nll=F.binary_cross_entropy_with_logits(logits, target.double()).item(),
            ece=calibration_error(*sum_bins(probabilities, target.flatten() > 0)).item(),
            ap=tuple(ap),
            count=len(target),
            thresholds_f1_macro=chosen[0],
            thresholds_f1_micro=chosen[1],
        )


def average_precision(scores: Float[Tensor, " n"], target: Int64[Tensor, " n"]) -> float:
    """The sum over positives of the precision at their rank, over the number of positives; NaN without positives.

    Equal scores share the rank of the last of them, as in scikit-learn's `average_precision_score`.

    >>> round(average_precision(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([1, 0, 1])), 4)
    0.8333
    """
    if not target.sum() or not scores.isfinite().all():
        return math.nan
    order = scores.argsort(descending=True)
    ranked, hits = scores[order], target[order].double()
    is_last = torch.cat([ranked[1:] != ranked[:-1], ranked.new_ones(1, dtype=torch.bool)])
    found = hits.cumsum(0)[is_last]
    said = is_last.nonzero().flatten() + 1
    gained = found.diff(prepend=found.new_zeros(1))
    return (gained * found / said).sum().div(found[-1]).item()


def f1_scores(
    logits: Float[Tensor, "n k"], target: Int64[Tensor, "n k"], thresholds: Sequence[float]
) -> tuple[float, float]:
    """The mean over the classes that any image shows of 2 TP / (2 TP + FP + FN), and the same of all answers together.

    >>> f1_scores(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), torch.tensor([[1, 1], [0, 1]]), [0.5, 0.5])
    (0.6666666666666666, 0.6666666666666666)
    """
    says_yes = say_yes(logits, thresholds).long()
    right, said, shown = (counts.sum(0).double() for counts in (says_yes * target, says_yes, target))
    known = shown > 0
    macro = (2 * right / (said + shown))[known].mean().item()
    total = (said + shown).sum()
    return macro, (2 * right.sum() / total).item() if total else math.nan


def say_yes(logits: Float[Tensor, "*n k"], thresholds: Sequence[float]) -> Tensor:
    """Which classes have a probability from their threshold on, bool (*n, k); in float64, where few round to 1."""
    return logits.double().sigmoid() >= torch.tensor(thresholds, dtype=torch.float64, device=logits.device)


def choose_thresholds(logits: Float[Tensor, "n k"], target: Int64[Tensor, "n k"]) -> tuple[float, ...]:
    """The probability of each class from which on saying yes has the best F1 score on these images.

    It lies halfway between the lowest probability that is taken and the next one. 0.5 for a class that no image shows.
    """
    probabilities = logits.double().sigmoid()
    return tuple(_choose_threshold(probabilities[:, k], target[:, k]) for k in range(target.shape[1]))


def _choose_threshold(probabilities: Float[Tensor, " n"], target: Int64[Tensor, " n"]) -> float:
    if not target.sum():
        return HALF
    ranked, order = probabilities.sort(descending=True)
    said = torch.arange(1, len(ranked) + 1, device=ranked.device)
    f1 = 2 * target[order].cumsum(0) / (said + target.sum())
    is_last = torch.cat([ranked[1:] < ranked[:-1], ranked.new_ones(1, dtype=torch.bool)])
    best = int(f1.where(is_last, -1).argmax())
    below = ranked[best + 1].item() if best + 1 < len(ranked) else 0.0
    return (ranked[best].item() + below) / 2


class MultiLabelSample(LabeledScores):
    """Class scores and labels of images, both (n, k)."""

    def split_classes(self) -> LabeledScores:
        """The same as a choice between no and yes for each class of each image, of the scores 0 and z."""
        logits = torch.stack([torch.zeros_like(self.logits), self.logits], dim=-1)
        return LabeledScores(logits.flatten(0, 1), self.target.flatten())

    def fit_temperature(self) -> float:
        return self.split_classes().fit_temperature()

    def nll_at(self, temperature: float) -> float:
        return self.split_classes().nll_at(temperature)


class MultiLabelCollector(Collector):
    """Collects `MultiLabelOutcomes` of class scores (b, k) and labels (b, k)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, most_sampled=KEPT_SCORES, labels_of_each=(num_classes,))

    def update(self, logits: Float[Tensor, "b k"], target: Int64[Tensor, "b k"]) -> None:
        self.scores.add(logits, target, seed=self.count_images(len(target)))

    def compute(self, device: str | torch.device = "cpu") -> MultiLabelOutcomes | None:
        """None of more class scores than are kept."""
        logits, shown = (
            interleave(gather_parts(torch.cat(rows), device)) for rows in (self.scores.logits, self.scores.targets)
        )
        images = int(sum_over_processes(torch.tensor(self.images, device=device)))
        if len(logits) < images or images > self.scores.most:
            return None
        probabilities = logits.double().sigmoid()
        bins = [sum_bins(row, labels > 0) for row, labels in zip(probabilities, shown, strict=True)]
        nll = F.binary_cross_entropy_with_logits(logits.double(), shown.double(), reduction="none").mean(dim=1)
        empty = (torch.zeros(0, BINS, dtype=torch.int64),) * 2 + (torch.zeros(0, BINS, dtype=torch.float64),)
        columns = map(torch.stack, zip(*bins, strict=True)) if bins else empty
        return MultiLabelOutcomes(shown, logits, nll, *columns)

    def sample(self, device: str | torch.device = "cpu") -> MultiLabelSample:
        return MultiLabelSample(*self.scores.gather(device))
