"""Scores of a student that gives every pixel a class."""

import math
from typing import NamedTuple

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from ..distributed import several
from .sliding_window import score_map

BINS = 15  # of the calibration error, of equal width
TOLERANCE = 0.0075  # of the image diagonal: how far apart two boundary pixels may lie and still match
NOWHERE = -1  # on a boundary map: no boundary
ROWS = 4  # of the disc around boundary pixels that are looked at together


class DenseScores(NamedTuple):
    """How well a student labels the pixels of `count` images, at the size of their masks; void pixels count nowhere."""

    miou: float  # mean of `iou` over the classes that occur, in [0, 1]
    pixel_accuracy: float  # share of the labelled pixels whose label has the highest score
    boundary_f: float  # how well the classes' outlines agree, in [0, 1]; nan where no image has any
    nll: float  # mean negative log-likelihood of the label, in nats, over labelled pixels
    ece: float  # expected calibration error of the highest probability: l1, 15 bins, in [0, 1], over labelled pixels
    iou: tuple[float, ...]  # each class's intersection over union, over all images; nan: neither labelled nor predicted
    count: int

    @property
    def main(self) -> float:
        """What chooses the best of several students, higher is better."""
        return self.miou

    @property
    def finite(self) -> bool:
        return math.isfinite(self.nll)

    def sentence(self) -> str:
        shares = f"mIoU {self.miou:.2%}  pixels {self.pixel_accuracy:.2%}  boundary F {self.boundary_f:.2%}"
        return f"{shares}  nll {self.nll:.4f}  ece {self.ece:.4f}"


class DenseTally:
    """Running sums from which `DenseScores` follow, on the device; images may come one at a time or many together."""

    def __init__(self, num_classes: int, *, void: int, window: tuple[int, int] | None, device: torch.device) -> None:
        self.num_classes, self.void, self.window = num_classes, void, window

        def counts(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int64, device=device)

        def sums(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=device)

        self.confusion = counts(num_classes, num_classes)  # label, prediction
        self.pixels, self.hits, self.confidence = counts(BINS), counts(BINS), sums(BINS)
        self.nll, self.boundary_f = sums(), sums()
        self.images, self.outlined = counts(), counts()  # outlined: those in which there is any boundary

    def logits(self, student: nn.Module, images: Tensor, target: Tensor) -> Tensor:
        """The student's scores at the size of the masks, whatever the size of the images."""
        if target.ndim != 3:
            raise ValueError(
                f"labels {tuple(target.shape)} are not those of pixels, (b, h, w); set kind=classification"
            )
        return score_map(student, images, tuple(target.shape[1:]), window=self.window)

    def check(self, logits: Tensor, target: Tensor) -> None:
        if logits.shape[1] != self.num_classes:
            raise ValueError(f"the student scores {logits.shape[1]} classes and the labels have {self.num_classes}")
        given = target[target != self.void]
        low, high = (int(given.min()), int(given.max())) if len(given) else (0, 0)
        if low < 0 or high >= self.num_classes:
            raise ValueError(f"the labels run from {low} to {high}, and the student's from 0 to {self.num_classes - 1}")

    def add(self, logits: Float[Tensor, "b k h w"], target: Int64[Tensor, "b h w"]) -> None:
        labelled = target != self.void
        log_probabilities = logits.log_softmax(dim=1)
        highest, predicted = log_probabilities.max(dim=1)
        nll = -log_probabilities.gather(1, target.where(labelled, 0)[:, None])[:, 0]
        self.nll += nll[labelled].double().sum()
        self._add_labelled(highest[labelled].exp(), predicted[labelled], target[labelled])
        for image in zip(predicted, target, labelled, strict=True):
            self._add_boundaries(*image)
        self.images += len(target)

    def _add_labelled(
        self, confidence: Float[Tensor, " n"], predicted: Int64[Tensor, " n"], target: Int64[Tensor, " n"]
    ) -> None:
        pairs = torch.bincount(target * self.num_classes + predicted, minlength=self.num_classes**2)
        self.confusion += pairs.view_as(self.confusion)
        bins = (confidence * BINS).long().clamp(0, BINS - 1)  # a confidence that is no number goes anywhere
        self.pixels += torch.bincount(bins, minlength=BINS)
        self.hits += torch.bincount(bins[predicted == target], minlength=BINS)
        self.confidence += torch.bincount(bins, weights=confidence.double(), minlength=BINS)

    def _add_boundaries(
        self, predicted: Int64[Tensor, "h w"], target: Int64[Tensor, "h w"], labelled: Bool[Tensor, "h w"]
    ) -> None:
        found = boundary_f(predicted, target, labelled, num_classes=self.num_classes)
        self.outlined += ~found.isnan()
        self.boundary_f += found.nan_to_num()

    def scores(self) -> DenseScores:
        """Of everything that was added, by all processes together; raises `ValueError` where that is nothing."""
        total = {name: _over_processes(value).cpu() for name, value in vars(self).items() if torch.is_tensor(value)}
        pixels, confusion = total["pixels"].sum(), total["confusion"].double()
        if total["images"] == 0:
            raise ValueError("there is no image to evaluate on: the loader gave no batch")
        if pixels == 0:
            raise ValueError("there is no labelled pixel to evaluate on: every mask is void throughout")
        right = confusion.diagonal()
        iou = right / (confusion.sum(0) + confusion.sum(1) - right)  # 0 / 0 is nan
        return DenseScores(
            miou=iou.nanmean().item(),
            pixel_accuracy=(right.sum() / pixels).item(),
            boundary_f=(total["boundary_f"] / total["outlined"]).item(),
            nll=(total["nll"] / pixels).item(),
            ece=((total["confidence"] - total["hits"]).abs().sum() / pixels).item(),
            iou=tuple(iou.tolist()),
            count=int(total["images"]),
        )


def _over_processes(value: Tensor) -> Tensor:
    if not several():
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total


def boundary_f(
    predicted: Int64[Tensor, "h w"], target: Int64[Tensor, "h w"], labelled: Bool[Tensor, "h w"], *, num_classes: int
) -> Float[Tensor, ""]:
    """How well the outlines of one image's classes agree: the F-score of each class, mean over classes, in [0, 1].

    Precision is the share of a class's predicted boundary pixels with a boundary pixel of that class in the labels at
    most `TOLERANCE` image diagonals away, in a straight line, or one pixel where that is more; recall is the converse.
    A class counts where it has a boundary in the labels or the prediction; nan where none has.
    Pixels that are not `labelled` neither are boundary nor make their neighbours so.
    Source: Csurka, Larlus, Perronnin, BMVC 2013, https://dx.doi.org/10.5244/C.27.32
    """
    radius = max(1.0, TOLERANCE * math.hypot(*target.shape))
    maps = [_boundaries(classes.where(labelled, NOWHERE), margin=int(radius)) for classes in (predicted, target)]
    widths = _half_widths(radius).to(target.device)
    shares = [_shares_near(own, other, widths, num_classes) for own, other in (maps, maps[::-1])]
    precision, recall = shares
    f = 2 * precision * recall / (precision + recall).clamp(min=torch.finfo(torch.float64).tiny)
    # 0 / 0, a share of nothing, is nan: 0 where the class has a boundary on one side alone, absent where on neither.
    return f.where(precision.isnan() == recall.isnan(), 0.0).nanmean()


def _half_widths(radius: float) -> Int64[Tensor, " n"]:
    """How many pixels a disc reaches to either side of its middle, in each of its rows from the first to the last."""
    reach = torch.arange(-int(radius), int(radius) + 1)
    inside = torch.cartesian_prod(reach, reach).double().norm(dim=1) <= radius
    return inside.view(len(reach), -1).sum(dim=1) // 2


def _boundaries(classes: Int64[Tensor, "h w"], *, margin: int) -> Int64[Tensor, "p q"]:
    """The class of every pixel beside one of another class, NOWHERE elsewhere; with a margin of NOWHERE around.

    Pixels touch along their sides. Those that hold NOWHERE, and what lies outside of the image, are no other class.
    """
    edge = torch.zeros_like(classes, dtype=torch.bool)
    for one, other in (((slice(1, None), ...), (slice(-1), ...)), ((..., slice(1, None)), (..., slice(-1)))):
        apart = (classes[one] != classes[other]) & (classes[one] != NOWHERE) & (classes[other] != NOWHERE)
        edge[one] |= apart
        edge[other] |= apart
    return nn.functional.pad(classes.where(edge, NOWHERE), [margin] * 4, value=NOWHERE)


def _shares_near(
    own: Int64[Tensor, "p q"], other: Int64[Tensor, "p q"], widths: Int64[Tensor, " n"], num_classes: int
) -> Float[Tensor, " k"]:
    """For each class, the share of its boundary pixels in `own` that have one in `other` in the disc around them.

    A disc is rows of these half `widths`, and pixels are numbered by class, row and column: a row of the disc holds one
    where the next number at its left end is no larger than its right end. Pixels that have found one in the rows close
    by are not looked at again. nan for a class without a boundary in `own`.
    """
    sought, there = _numbered(own), _numbered(other)
    there = nn.functional.pad(there, (0, 1), value=(num_classes + 1) * own.numel())  # further than any
    total = torch.bincount(sought // own.numel(), minlength=num_classes)
    rows = torch.arange(len(widths), device=own.device) - len(widths) // 2
    for some in rows.abs().argsort().split(ROWS):
        left = sought[:, None] + rows[some] * own.shape[1] - widths[some]
        near = there[torch.searchsorted(there, left)] <= left + 2 * widths[some]
        sought = sought[~near.any(dim=1)]
    return 1 - torch.bincount(sought // own.numel(), minlength=num_classes).double() / total


def _numbered(boundaries: Int64[Tensor, "p q"]) -> Int64[Tensor, " n"]:
    """A number for each pixel of a boundary map that has a class, ascending: its class, then its place in the map."""
    classes = boundaries.flatten()
    places = (classes != NOWHERE).nonzero()[:, 0]
    return (classes[places] * len(classes) + places).sort().values
