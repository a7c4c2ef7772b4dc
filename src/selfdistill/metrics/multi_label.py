"""What is computed of answers yes or no to each class: average precision, F1 scores, thresholds, outcomes."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from ..distributed import gather_parts, sum_over_processes
from .calibration import BINS, sum_bins
from .outcomes import KEPT_SCORES, Collector, LabeledScores, MultiLabelOutcomes, interleave

HALF = 0.5  # the threshold of every class unless others are chosen
UNKNOWN = -1  # the label where it is not known whether an image shows a class; such labels count for nothing


def average_precision(scores: Float[Tensor, " n"], target: Int64[Tensor, " n"]) -> float:
    """The sum over positives of the precision at their rank, over the number of positives; NaN without positives.

    Images with a label below 0 are left out.
    Equal scores share the rank of the last of them, as in scikit-learn's `average_precision_score`.

    >>> round(average_precision(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([1, 0, 1])), 4)
    0.8333
    """
    scores, target = scores[target >= 0], target[target >= 0]
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

    Labels below 0 are left out.

    >>> f1_scores(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), torch.tensor([[1, 1], [0, 1]]), [0.5, 0.5])
    (0.6666666666666666, 0.6666666666666666)
    """
    says_yes, target = say_yes(logits, thresholds).long() * (target >= 0), target.clamp(min=0)
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
    Labels below 0 are left out.
    """
    probabilities = logits.double().sigmoid()
    columns = zip(probabilities.T, target.T, strict=True)
    return tuple(_choose_threshold(chances[labels >= 0], labels[labels >= 0]) for chances, labels in columns)


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
    """Class scores and labels of images, both (n, k); a label below 0 is not known."""

    def split_classes(self) -> LabeledScores:
        """The same as a choice between no and yes for each known label of each image, of the scores 0 and z."""
        scores, labels = self.logits[self.target >= 0], self.target[self.target >= 0]
        return LabeledScores(torch.stack([torch.zeros_like(scores), scores], dim=-1), labels)

    def fit_temperature(self) -> float:
        return self.split_classes().fit_temperature()

    def nll_at(self, temperature: float) -> float:
        return self.split_classes().nll_at(temperature)


def mean_nll(logits: Float[Tensor, "n k"], shown: Int64[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """The negative log-likelihood of each image's labels, mean over those that are known; 0 where none is."""
    costs = F.binary_cross_entropy_with_logits(logits, shown.to(logits.dtype), reduction="none")
    known = shown >= 0
    if known.all():
        return costs.mean(dim=1)
    return costs.where(known, 0).sum(dim=1) / known.sum(dim=1).clamp(min=1)


class MultiLabelCollector(Collector):
    """Collects `MultiLabelOutcomes` of class scores (b, k) and labels (b, k)."""

    def __init__(self, num_classes: int, *, ignore_index: int = -100) -> None:
        super().__init__(num_classes, most_sampled=KEPT_SCORES, labels_of_each=(num_classes,))
        self.ignore_index = ignore_index

    def update(self, logits: Float[Tensor, "b k"], target: Int64[Tensor, "b k"]) -> None:
        target = target.where(target != self.ignore_index, UNKNOWN)
        self.scores.add(logits, target, seed=self.count_images(len(target)))

    def compute(self, device: str | torch.device = "cpu") -> MultiLabelOutcomes | None:
        """None of more class scores than are kept."""
        logits, shown = (
            interleave(gather_parts(torch.cat(rows), device)) for rows in (self.scores.logits, self.scores.targets)
        )
        images = int(sum_over_processes(torch.tensor(self.images, device=device)))
        if len(logits) < images or images > self.scores.most:
            return None
        rows = zip(logits.double().sigmoid(), shown, strict=True)
        bins = [sum_bins(row[labels >= 0], labels[labels >= 0] > 0) for row, labels in rows]
        nll = mean_nll(logits.double(), shown)
        empty = (torch.zeros(0, BINS, dtype=torch.int64),) * 2 + (torch.zeros(0, BINS, dtype=torch.float64),)
        columns = map(torch.stack, zip(*bins, strict=True)) if bins else empty
        return MultiLabelOutcomes(shown, logits, nll, *columns)

    def sample(self, device: str | torch.device = "cpu") -> MultiLabelSample:
        return MultiLabelSample(*self.scores.gather(device))
