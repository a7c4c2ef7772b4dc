"""The scores that a run records: of images with one label, with several, and with one for each pixel."""

import math
from typing import NamedTuple


class ClassificationScores(NamedTuple):
    """Scores of a student on `count` images with one label each."""

    top1: float  # share in [0, 1] whose label has the highest score
    top5: float  # share whose label is among the five highest scores
    nll: float  # mean negative log-likelihood of the label, in nats
    ece: float  # expected calibration error of the highest probability: l1, 15 bins, in [0, 1]
    count: int  # type: ignore[assignment]  # tuples have a method of this name
    balanced_accuracy: float | None = None  # mean share right over classes; None: equally frequent ones

    @property
    def main(self) -> float:
        """The score that chooses the best of several students; higher is better."""
        return self.top1

    @property
    def finite(self) -> bool:
        return math.isfinite(self.nll)

    def sentence(self) -> str:
        balanced = "" if self.balanced_accuracy is None else f"  balanced {self.balanced_accuracy:.2%}"
        return f"top-1 {self.top1:.2%}{balanced}  top-5 {self.top5:.2%}  nll {self.nll:.4f}  ece {self.ece:.4f}"


class MultiLabelScores(NamedTuple):
    """Scores of a student on `count` images that show any number of classes; labels not known count for nothing.

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


class SegmentationScores(NamedTuple):
    """Scores of a student on the labeled pixels of `count` images, at the size of their masks."""

    miou: float  # mean of `iou` over the classes that occur, in [0, 1]
    pixel_accuracy: float  # share of the labeled pixels whose label has the highest score
    boundary_f: float  # agreement of the class outlines, in [0, 1]; NaN if no image has any
    nll: float  # mean negative log-likelihood of the label, in nats, over labeled pixels
    ece: float  # expected calibration error of the highest probability: l1, 15 bins, in [0, 1], over labeled pixels
    iou: tuple[float, ...]  # intersection over union of each class, over all images; NaN if it never occurs
    count: int  # type: ignore[assignment]  # tuples have a method of this name

    @property
    def main(self) -> float:
        """The score that chooses the best of several students; higher is better."""
        return self.miou

    @property
    def finite(self) -> bool:
        return math.isfinite(self.nll)

    def sentence(self) -> str:
        shares = f"mIoU {self.miou:.2%}  pixels {self.pixel_accuracy:.2%}  boundary F {self.boundary_f:.2%}"
        return f"{shares}  nll {self.nll:.4f}  ece {self.ece:.4f}"
