"""Expected calibration error: how far confidences are from the share of predictions that are right."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

BINS = 15  # of equal width


def sum_bins(
    confidence: Float[Tensor, " n"], right: Bool[Tensor, " n"]
) -> tuple[Int64[Tensor, " bins"], Int64[Tensor, " bins"], Float[Tensor, " bins"]]:
    """Predictions, right predictions and the sum of confidences in each bin; sums of several batches add up."""
    bins = (confidence * BINS).long().clamp(0, BINS - 1)  # a confidence that is NaN goes anywhere
    return (
        torch.bincount(bins, minlength=BINS),
        torch.bincount(bins[right], minlength=BINS),
        torch.bincount(bins, weights=confidence.double(), minlength=BINS).double(),  # without a prediction: int64
    )


def calibration_error(
    predictions: Int64[Tensor, " bins"], hits: Int64[Tensor, " bins"], confidence: Float[Tensor, " bins"]
) -> Float[Tensor, ""]:
    """The l1 calibration error from `sum_bins`, in [0, 1]; NaN where there is no prediction.

    Source: Guo et al., 2017, eq. 3, https://arxiv.org/abs/1706.04599
    """
    return (confidence - hits).abs().sum() / predictions.sum()
