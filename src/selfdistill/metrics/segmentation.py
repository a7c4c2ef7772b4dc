"""Scores of a student that gives every pixel a class."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torchmetrics import Metric

from .boundary import boundary_f
from .calibration import BINS, calibration_error, sum_bins
from .classification import refuse_labels_beyond
from .scores import SegmentationScores


class SegmentationMetric(Metric):
    """`SegmentationScores` of class scores (b, k, h, w) and labels (b, h, w); images may come one at a time.

    Pixels of `ignore_index` are ignored. Counts are exact (int64) and sums are float64. `compute` raises
    `ValueError` if nothing was added or nothing is labeled. If a logit of a labeled pixel is NaN, so are `nll` and
    `ece`.
    """

    full_state_update = False

    def __init__(self, num_classes: int, *, ignore_index: int = -100) -> None:
        super().__init__()
        self.num_classes, self.ignore_index = num_classes, ignore_index
        counts = {
            "confusion": (num_classes, num_classes),  # label, prediction
            "pixels": (BINS,),
            "hits": (BINS,),
            "images": (),
            "outlined_images": (),  # those in which there is any boundary
        }
        for name, shape in counts.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")
        for name, shape in {"confidence": (BINS,), "nll": (), "boundary_f": ()}.items():
            self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self._add_nothing()

    def reset(self) -> None:
        super().reset()
        self._add_nothing()

    def _add_nothing(self) -> None:
        """Adds an empty batch: a process without images also takes part when states are added up."""
        shape = (0, self.num_classes, 1, 1)
        self.update(torch.empty(shape, device=self.device), torch.empty(0, 1, 1, dtype=torch.int64, device=self.device))

    def update(self, logits: Float[Tensor, "b k h w"], target: Int64[Tensor, "b h w"]) -> None:
        labeled = target != self.ignore_index
        self._check(logits, target[labeled])
        log_probabilities = logits.float().log_softmax(dim=1)
        highest, predicted = log_probabilities.max(dim=1)
        nll = -log_probabilities.gather(1, target.where(labeled, 0)[:, None])[:, 0]
        self.nll += nll[labeled].double().sum()
        self._add_labeled(highest[labeled].exp(), predicted[labeled], target[labeled])
        for image in zip(predicted, target, labeled, strict=True):
            self._add_boundaries(*image)
        self.images += len(target)

    def _check(self, logits: Tensor, labels: Tensor) -> None:
        if logits.shape[1] != self.num_classes:
            raise ValueError(f"the student scores {logits.shape[1]} classes and the labels have {self.num_classes}")
        refuse_labels_beyond(labels, self.num_classes)

    def _add_labeled(
        self, confidence: Float[Tensor, " n"], predicted: Int64[Tensor, " n"], target: Int64[Tensor, " n"]
    ) -> None:
        pairs = torch.bincount(target * self.num_classes + predicted, minlength=self.num_classes**2)
        self.confusion += pairs.view_as(self.confusion)
        pixels, hits, confidences = sum_bins(confidence, predicted == target)
        self.pixels += pixels
        self.hits += hits
        self.confidence += confidences

    def _add_boundaries(
        self, predicted: Int64[Tensor, "h w"], target: Int64[Tensor, "h w"], labeled: Bool[Tensor, "h w"]
    ) -> None:
        score = boundary_f(predicted, target, labeled, num_classes=self.num_classes)
        self.outlined_images += ~score.isnan()
        self.boundary_f += score.nan_to_num()

    def compute(self) -> SegmentationScores:
        pixels = self.pixels.sum()
        if self.images == 0:
            raise ValueError("there is no image to evaluate on: the loader gave no batch")
        if pixels == 0:
            raise ValueError("there is no labeled pixel to evaluate on: every mask is void throughout")
        confusion = self.confusion.double()
        right = confusion.diagonal()
        iou = right / (confusion.sum(0) + confusion.sum(1) - right)  # 0 / 0 is NaN
        return SegmentationScores(
            miou=iou.nanmean().item(),
            pixel_accuracy=(right.sum() / pixels).item(),
            boundary_f=(self.boundary_f / self.outlined_images).item(),
            nll=(self.nll / pixels).item(),
            ece=calibration_error(self.pixels, self.hits, self.confidence).item(),
            iou=tuple(iou.tolist()),
            count=int(self.images),
        )
