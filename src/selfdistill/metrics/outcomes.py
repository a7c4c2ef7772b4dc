"""What a student answered for each image of a split: the rows from which a comparison tests differences.

A collector is given the same class scores and labels as a metric, and after the last batch it has one row for each
image, in the order of the split.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from ..distributed import gather_parts, process_rank, sum_over_processes, world_size
from .calibration import BINS, sum_bins
from .temperature import fit_temperature, nll_at_temperature

KEPT_SCORES = 2**24  # class scores that are kept of a split, in float32: 64 MiB
SAMPLED_PIXELS = 2**20  # labeled pixels whose class scores are kept, at most


class ClassOutcomes(NamedTuple):
    """The answer for each image of a split, in the split's order."""

    label: Int64[Tensor, " n"]
    predicted: Int64[Tensor, " n"]  # the class with the highest score
    confidence: Float[Tensor, " n"]  # its probability
    nll: Float[Tensor, " n"]  # negative log-likelihood of the label, in nats
    logits: Float[Tensor, "n k"] | None  # None where there are more than `KEPT_SCORES`


class PixelOutcomes(NamedTuple):
    """Counts of the labeled pixels of each image of a split, in the split's order, at the size of its masks."""

    intersection: Int64[Tensor, "n k"]  # pixels of each class that are predicted as it
    predicted: Int64[Tensor, "n k"]  # pixels that are predicted as each class
    labeled: Int64[Tensor, "n k"]  # pixels that have each class as their label
    confusion: Int64[Tensor, "k k"]  # pixels of the whole split, label by prediction
    nll: Float[Tensor, " n"]  # negative log-likelihood of the labels, in nats, summed over the image
    bin_count: Int64[Tensor, "n bins"]  # pixels in each of the bins of the calibration error
    bin_hits: Int64[Tensor, "n bins"]  # those among them that are predicted right
    bin_confidence: Float[Tensor, "n bins"]  # their probabilities of the predicted class, summed


class MultiLabelOutcomes(NamedTuple):
    """The answers for each image of a split that shows any number of classes, in the split's order."""

    shown: Int64[Tensor, "n k"]  # 1 where an image shows a class, 0 where not, -1 where that is not known
    logits: Float[Tensor, "n k"]
    nll: Float[Tensor, " n"]  # negative log-likelihood of the labels, in nats, mean over the known ones
    bin_count: Int64[Tensor, "n bins"]  # classes in each of the bins of the calibration error
    bin_hits: Int64[Tensor, "n bins"]  # those among them that the image shows
    bin_confidence: Float[Tensor, "n bins"]  # their probabilities, summed


Outcomes = ClassOutcomes | PixelOutcomes | MultiLabelOutcomes
SHAPES = {  # of each column; n, k: images and classes; b: bins
    ClassOutcomes: {"label": "n", "predicted": "n", "confidence": "n", "nll": "n", "logits": "nk"},
    PixelOutcomes: {
        **dict.fromkeys(("intersection", "predicted", "labeled"), "nk"),
        "confusion": "kk",
        "nll": "n",
        **dict.fromkeys(("bin_count", "bin_hits", "bin_confidence"), "nb"),
    },
    MultiLabelOutcomes: {
        **dict.fromkeys(("shown", "logits"), "nk"),
        "nll": "n",
        **dict.fromkeys(("bin_count", "bin_hits", "bin_confidence"), "nb"),
    },
}
SUMS = ("nll", "bin_confidence")  # in float64; all other columns of pixels are counts, and logits are float32


def restore_outcomes(kind: str, columns: Mapping[str, Tensor]) -> Outcomes:
    """Outcomes of the type called `kind`, from their columns; raises `ValueError` for columns that do not fit."""
    found = next((outcomes for outcomes in SHAPES if outcomes.__name__ == kind), None)
    if found is None:
        raise ValueError(f"it holds {kind!r}, which are no outcomes")
    needed = {name for name in SHAPES[found] if name != "logits" or found is not ClassOutcomes}
    shapes = {name: shape for name, shape in SHAPES[found].items() if name in columns or name in needed}
    if columns.keys() != shapes.keys():
        raise ValueError(f"it holds {', '.join(columns)} instead of {', '.join(shapes)}")
    sizes = {"b": BINS}
    for name, shape in shapes.items():
        value, wanted = columns[name], _find_dtype(found, name)
        if value.dtype != wanted or value.ndim != len(shape):
            raise ValueError(f"{name} is {value.dtype} {tuple(value.shape)} instead of {wanted} ({', '.join(shape)})")
        for letter, size in zip(shape, value.shape, strict=True):
            if sizes.setdefault(letter, size) != size:
                raise ValueError(f"{name} is {tuple(value.shape)}, and other columns have {letter}={sizes[letter]}")
        least = -1 if name == "shown" else 0
        if not value.is_floating_point() and value.numel() and int(value.min()) < least:
            raise ValueError(f"{name} holds {int(value.min())}, and no number below 0 is a class or a count")
        if name in ("label", "predicted") and found is ClassOutcomes and "logits" in columns and value.numel():
            count = columns["logits"].shape[-1]
            if int(value.max()) >= count:
                raise ValueError(f"{name} holds {int(value.max())}, and there are {count} classes")
    return found(**{name: columns.get(name) for name in found._fields})


def _find_dtype(outcomes: type[Outcomes], name: str) -> torch.dtype:
    if outcomes is ClassOutcomes:
        return torch.int64 if name in ("label", "predicted") else torch.float32
    return torch.float32 if name == "logits" else torch.float64 if name in SUMS else torch.int64


class LabeledScores(NamedTuple):
    """Class scores of labeled positions, which are images or pixels, in float32."""

    logits: Float[Tensor, "n k"]
    target: Int64[Tensor, "n ..."]

    @property
    def is_finite(self) -> bool:
        """Whether no score is NaN or infinite."""
        return bool(self.logits.isfinite().all())

    def fit_temperature(self) -> float:
        """The temperature with the lowest NLL, see `metrics.temperature`."""
        return fit_temperature(self.logits, self.target)

    def nll_at(self, temperature: float) -> float:
        """The mean negative log-likelihood of the labels at a temperature, in nats."""
        return nll_at_temperature(self.logits, self.target, temperature)


class Collector(ABC):
    """Collects the outcomes of one process's share of a split: process r has the images r, r + world, ..."""

    def __init__(self, num_classes: int, *, most_sampled: int, labels_of_each: tuple[int, ...] = ()) -> None:
        self.num_classes = num_classes
        self.images = 0  # of this process so far
        self.scores = ScoreSample(num_classes, min(most_sampled, KEPT_SCORES // num_classes), labels_of_each)

    @abstractmethod
    def update(self, logits: Tensor, target: Tensor) -> None:
        """Adds a batch: class scores in float32, and labels."""

    @abstractmethod
    def compute(self, device: str | torch.device = "cpu") -> Outcomes | None:
        """The outcomes of all processes, on the CPU; `device` is where processes exchange tensors.

        None where it keeps nothing of single images.
        """

    def sample(self, device: str | torch.device = "cpu") -> LabeledScores:
        """Class scores of the labeled positions of all processes: of all of them, or of a uniform sample."""
        return self.scores.gather(device)

    def count_images(self, count: int) -> int:
        """Counts further images, and gives the number of the first of them in the split."""
        first = process_rank() + self.images * world_size()
        self.images += count
        return first


class ClassCollector(Collector):
    """Collects `ClassOutcomes` of class scores (b, k) and labels (b,)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, most_sampled=KEPT_SCORES)
        self.labels = [torch.empty(0, 2, dtype=torch.int64)]  # (label, predicted class) of each image
        self.values = [torch.empty(0, 2)]  # (confidence, nll)

    def update(self, logits: Float[Tensor, "b k"], target: Int64[Tensor, " b"]) -> None:
        predicted = find_top_classes(logits)[:, 0]
        confidence = logits.softmax(dim=1).gather(1, predicted[:, None])[:, 0]
        nll = F.cross_entropy(logits, target, reduction="none")
        self.labels.append(torch.stack([target, predicted], dim=1).cpu())
        self.values.append(torch.stack([confidence, nll], dim=1).cpu())
        self.scores.add(logits, target, seed=self.count_images(len(target)))

    def compute(self, device: str | torch.device = "cpu") -> ClassOutcomes:
        labels, values = (interleave(gather_parts(torch.cat(rows), device)) for rows in (self.labels, self.values))
        logits = None
        if len(labels) <= self.scores.most:
            logits = interleave(gather_parts(torch.cat(self.scores.logits), device))
        return ClassOutcomes(labels[:, 0], labels[:, 1], values[:, 0], values[:, 1], logits)


class PixelCollector(Collector):
    """Collects `PixelOutcomes` of class scores (b, k, h, w) and labels (b, h, w), `ignore_index` where none."""

    def __init__(self, num_classes: int, *, ignore_index: int = -100) -> None:
        super().__init__(num_classes, most_sampled=SAMPLED_PIXELS)
        self.ignore_index = ignore_index
        self.confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self.pixels = [torch.empty(0, 3, num_classes, dtype=torch.int64)]  # intersection, predicted, labeled
        self.counts = [torch.empty(0, 2, BINS, dtype=torch.int64)]  # bin_count, bin_hits
        self.sums = [torch.empty(0, 1 + BINS, dtype=torch.float64)]  # nll, bin_confidence

    def update(self, logits: Float[Tensor, "b k h w"], target: Int64[Tensor, "b h w"]) -> None:
        log_probabilities = logits.log_softmax(dim=1)
        highest, predicted = log_probabilities.max(dim=1)
        nll = -log_probabilities.gather(1, target.where(target != self.ignore_index, 0)[:, None])[:, 0]
        for number, labels in enumerate(target):
            labeled = labels != self.ignore_index
            self._add_image(*(values[number][labeled] for values in (highest, predicted, nll)), labels[labeled])
            self.scores.add(logits[number][:, labeled].T, labels[labeled], seed=self.count_images(1))

    def _add_image(self, highest: Tensor, predicted: Tensor, nll: Tensor, target: Int64[Tensor, " n"]) -> None:
        """Adds what was computed of the labeled pixels of one image."""
        pairs = torch.bincount(target * self.num_classes + predicted, minlength=self.num_classes**2)
        confusion = pairs.view(self.num_classes, self.num_classes).cpu()
        count, hits, confidence = sum_bins(highest.exp(), predicted == target)
        self.confusion += confusion
        self.pixels.append(torch.stack([confusion.diagonal(), confusion.sum(dim=0), confusion.sum(dim=1)])[None])
        self.counts.append(torch.stack([count, hits])[None].cpu())
        self.sums.append(torch.cat([nll.double().sum()[None], confidence])[None].cpu())

    def compute(self, device: str | torch.device = "cpu") -> PixelOutcomes:
        columns = (self.pixels, self.counts, self.sums)
        pixels, counts, sums = (interleave(gather_parts(torch.cat(rows), device)) for rows in columns)
        return PixelOutcomes(
            *pixels.unbind(dim=1),
            confusion=sum_over_processes(self.confusion.to(device)).cpu(),
            nll=sums[:, 0],
            bin_count=counts[:, 0],
            bin_hits=counts[:, 1],
            bin_confidence=sums[:, 1:],
        )


class ScoreSample:
    """The class scores of labeled positions; of more than `most` a uniform sample, drawn by random keys.

    A position stays if its key is among the `most` smallest, so processes can draw their parts apart. As long as none
    was dropped, the order is that in which they were added. A position has one label, or `labels_of_each` of this
    shape.
    """

    def __init__(self, num_classes: int, most: int, labels_of_each: tuple[int, ...] = ()) -> None:
        self.most, self.bound = most, math.inf
        self.logits = [torch.empty(0, num_classes)]
        self.targets = [torch.empty(0, *labels_of_each, dtype=torch.int64)]
        self.keys = [torch.empty(0, dtype=torch.float64)]

    def add(self, logits: Float[Tensor, "n k"], target: Int64[Tensor, "n ..."], *, seed: int) -> None:
        """Adds positions, whose keys are drawn from `seed`."""
        keys = torch.rand(len(target), generator=torch.Generator().manual_seed(seed), dtype=torch.float64, device="cpu")
        near = keys < self.bound
        self.keys.append(keys[near])
        near = near.to(logits.device)
        self.logits.append(logits[near].cpu())
        self.targets.append(target[near].cpu())
        if sum(map(len, self.keys)) > 2 * self.most:
            self._set(*self._select(torch.cat(self.logits), torch.cat(self.targets), torch.cat(self.keys)))

    def _set(self, logits: Tensor, target: Tensor, keys: Tensor) -> None:
        self.logits, self.targets, self.keys = [logits], [target], [keys]
        self.bound = keys.max().item()

    def _select(self, logits: Tensor, target: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The rows with the `most` smallest keys, in their order."""
        if len(keys) <= self.most:
            return logits, target, keys
        kept = keys.argsort(stable=True)[: self.most].sort().values
        return logits[kept], target[kept], keys[kept]

    def gather(self, device: str | torch.device) -> LabeledScores:
        """The sample of all processes."""
        columns = (self.logits, self.targets, self.keys)
        gathered = [torch.cat(gather_parts(torch.cat(parts), device)) for parts in columns]
        return LabeledScores(*self._select(*gathered)[:2])


def interleave(parts: Sequence[Tensor]) -> Tensor:
    """The rows 0, 1, 2, ... of a whole, of which part r of w holds the rows r, r + w, ...

    >>> interleave([torch.tensor([0, 2, 4]), torch.tensor([1, 3])]).tolist()
    [0, 1, 2, 3, 4]
    """
    whole = parts[0].new_empty(sum(map(len, parts)), *parts[0].shape[1:])
    for first, part in enumerate(parts):
        whole[first :: len(parts)] = part
    return whole


def find_top_classes(logits: Float[Tensor, "b k"]) -> Int64[Tensor, "b top"]:
    """The five classes with the highest scores, highest first; all of them where there are fewer."""
    return logits.topk(min(5, logits.shape[1]), dim=1).indices
