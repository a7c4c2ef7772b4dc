"""One temperature for all class scores, fitted on labels: the simplest calibration."""

import math
from collections.abc import Iterator

from jaxtyping import Float, Int64
from torch import Tensor

COLDEST, HOTTEST = 0.01, 100.0  # temperatures among which the best is sought
PRECISION = 1e-10  # of the temperature, relative
STEPS = 60  # of the search, at most; each at least halves the interval or is Newton's
AT_ONCE = 2**21  # class scores that are computed with in float64 at a time


def fit_temperature(logits: Float[Tensor, "n k"], target: Int64[Tensor, " n"]) -> float:
    """The temperature T in [0.01, 100] at which softmax(logits / T) has the lowest NLL of the labels.

    The NLL is convex in 1 / T, so its slope is brought to 0 by Newton's method within a bracket, in float64. Where all
    labels have the highest score it falls without end, and T is 0.01. Raises `ValueError` without rows and for logits
    that are NaN or infinite.
    Source: Guo et al., 2017, section 4.2, https://arxiv.org/abs/1706.04599
    """
    if not len(target) or not bool(logits.isfinite().all()):
        raise ValueError("a temperature is fitted on finite class scores of at least one label")
    low, high = 1 / HOTTEST, 1 / COLDEST  # of 1 / T
    if _compute_slope(logits, target, low)[0] >= 0:
        return HOTTEST
    if _compute_slope(logits, target, high)[0] <= 0:
        return COLDEST
    inverse = 1.0
    for _ in range(STEPS):
        slope, curvature = _compute_slope(logits, target, inverse)
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        newton = inverse - slope / curvature if curvature > 0 else math.nan
        if abs(newton - inverse) <= PRECISION * inverse or high - low <= PRECISION * low:
            break
        inverse = newton if low < newton < high else math.sqrt(low * high)
    return 1 / inverse


def nll_at_temperature(logits: Float[Tensor, "n k"], target: Int64[Tensor, " n"], temperature: float) -> float:
    """The mean negative log-likelihood of the labels under softmax(logits / temperature), in nats; in float64."""
    total = 0.0
    for rows, labels in _split_rows(logits, target):
        log_probabilities = (rows / temperature).log_softmax(dim=1)
        total -= log_probabilities.gather(1, labels[:, None]).sum().item()
    return total / len(target)


def _compute_slope(logits: Tensor, target: Tensor, inverse: float) -> tuple[float, float]:
    """The first and second derivatives of the mean NLL by the inverse temperature."""
    slope = curvature = 0.0
    for rows, labels in _split_rows(logits, target):
        probabilities = (rows * inverse).softmax(dim=1)
        mean = (probabilities * rows).sum(dim=1)
        slope += (mean - rows.gather(1, labels[:, None])[:, 0]).sum().item()
        curvature += (probabilities * (rows - mean[:, None]).square()).sum().item()
    return slope / len(target), curvature / len(target)


def _split_rows(logits: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Blocks of rows, with scores in float64."""
    size = max(AT_ONCE // logits.shape[1], 1)
    for rows, labels in zip(logits.split(size), target.split(size), strict=True):
        yield rows.double(), labels
