"""Expected calibration error: the distance of confidences from the share of correct predictions."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

BINS = 15  # of equal width


def sum_bins(
    confidence: Float[Tensor, " n"], right: Bool[Tensor, " n"]
) -> tuple[Int64[Tensor, " bins"], Int64[Tensor, " bins"], Float[Tensor, " bins"]]:
    """Sums predictions, correct predictions and confidences in each bin. Sums of several batches can be added."""
    bins = (confidence * BINS).long().clamp(0, BINS - 1)  # a NaN confidence may fall into any bin
    return (
        torch.bincount(bins, minlength=BINS),
        torch.bincount(bins[right], minlength=BINS),
        torch.bincount(bins, weights=confidence.double(), minlength=BINS).double(),  # without a prediction: int64
    )


def calibration_error(
    predictions: Int64[Tensor, " bins"], hits: Int64[Tensor, " bins"], confidence: Float[Tensor, " bins"]
) -> Float[Tensor, ""]:
    """The l1 calibration error from `sum_bins`, in [0, 1]; NaN without predictions.

    Source: Guo et al., 2017, eq. 3, https://arxiv.org/abs/1706.04599
    """
    return (confidence - hits).abs().sum() / predictions.sum()
