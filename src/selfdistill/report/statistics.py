"""Statistics of paired comparisons: pure functions on numbers and numpy arrays, without input and output.

Two arms were trained with the same seeds and scored on the same test rows. Three questions have three errors:

* Would other *seeds* say the same? The paired t interval over seeds (`compare_pairs`).
* Would other *test images* say the same of these networks? The bootstrap over rows (`bootstrap_mean`,
  `bootstrap_iou`), and its standard error (`measure_row_error`).
* Would both? `compare_both`, on which verdicts rest. With S seeds and n rows, the difference of seed s on row i is
  modelled as d[s, i] = mean + a[s] + b[i] + e[s, i], all effects random. With the mean squares of the two-way layout

      MS_a = n * variance of the seeds' means,  MS_b = S * variance of the rows' means,  MS_e = the residual's,

  the variance of the grand mean is (MS_a + MS_b - MS_e) / (S n): each of the first two holds the residual, which is
  therefore taken off once. Its degrees of freedom are Satterthwaite's,
  df = (MS_a + MS_b - MS_e)^2 / (MS_a^2 / (S - 1) + MS_b^2 / (n - 1) + MS_e^2 / ((S - 1)(n - 1))).
  Where the rows show no effect of their own (MS_b / MS_e below the 75 % point of F), the seeds' means hold all there
  is, and the interval is the paired t interval over seeds. Without that test, small test sets of arms that differ by
  chance alone had intervals that covered 97 to 99 % instead of 95; with it, 93 to 96.5 % in all simulated layouts.
  Source: Searle, Casella, McCulloch. Variance Components, 1992, sections 2.2 and 4.3; Satterthwaite, Biometrics
  Bulletin 2 (1946), page 110; the preliminary test: Bozivich, Bancroft, Hartley. Annals of Mathematical Statistics 27
  (1956), page 1017.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import fdtri, stdtr, stdtrit

LEAST_SEEDS = 3  # with two, a 95 % interval is thirteen standard errors wide on either side
CONFIDENCE = 0.95
POOLED = 0.25  # level of the test for an effect of rows; a usual one for such preliminary tests
REPLICATES = 2000
CHUNK = 4_000_000  # drawn rows that are held at a time

Floats = NDArray[np.float64]


class Estimate(NamedTuple):
    """A mean with its interval; the p-value is that of a mean of 0, two-sided."""

    mean: float
    low: float
    high: float
    p: float
    standard_error: float
    df: float


def estimate(mean: float, standard_error: float, df: float, confidence: float = CONFIDENCE) -> Estimate:
    """The t interval of a mean. Without any error the interval is a point, and p is 0, or 1 for a mean of 0."""
    if standard_error > 0:
        margin = float(stdtrit(df, (1 + confidence) / 2)) * standard_error
        p = 2 * float(stdtr(df, -abs(mean) / standard_error))
    else:
        margin, p = 0.0, float(mean == 0)
    return Estimate(float(mean), float(mean - margin), float(mean + margin), p, float(standard_error), float(df))


def compare_pairs(differences: ArrayLike, confidence: float = CONFIDENCE) -> Estimate | None:
    """The paired t interval of differences, one for each seed; None for fewer than `LEAST_SEEDS`."""
    values = np.asarray(differences, dtype=np.float64)
    if len(values) < LEAST_SEEDS:
        return None
    return estimate(float(values.mean()), _spread(values) / math.sqrt(len(values)), float(len(values) - 1), confidence)


def compare_both(differences: ArrayLike, confidence: float = CONFIDENCE) -> Estimate | None:
    """The interval for other seeds *and* other test rows, from differences (seeds, rows); see the top of this file.

    None for fewer than `LEAST_SEEDS` seeds or two rows.
    """
    values = np.asarray(differences, dtype=np.float64)
    seeds, rows = values.shape
    if seeds < LEAST_SEEDS or rows < 2:
        return None
    of_seeds, of_rows, mean = values.mean(1), values.mean(0), float(values.mean())
    residuals = values - of_seeds[:, None] - of_rows + mean
    free = np.array([seeds - 1, rows - 1, (seeds - 1) * (rows - 1)])
    squares = np.array([rows * _spread(of_seeds) ** 2, seeds * _spread(of_rows) ** 2, (residuals**2).sum() / free[2]])
    total, df = squares[0], float(free[0])
    if squares[1] > squares[2] * fdtri(free[1], free[2], 1 - POOLED) and squares.any():
        total = max(squares[0] + squares[1] - squares[2], squares[0])
        df = max(float(total**2 / (squares**2 / free).sum()), 1.0)
    return estimate(mean, math.sqrt(total / (seeds * rows)), df, confidence)


def _spread(values: Floats) -> float:
    """The sample standard deviation; exactly 0 where all values are the same."""
    return 0.0 if np.ptp(values) == 0 else float(values.std(ddof=1))


def measure_row_error(values: ArrayLike) -> float:
    """The standard error of a mean over test rows, from values (seeds, rows) that are averaged over the seeds first."""
    averaged = np.asarray(values, dtype=np.float64).mean(0)
    return _spread(averaged) / math.sqrt(len(averaged)) if len(averaged) > 1 else math.nan


def linearize_ratio(numerator: ArrayLike, denominator: ArrayLike) -> Floats:
    """What each image says of the ratios sum(N) / sum(D) over all images: (n, k), whose means are the ratios.

    The infinitesimal jackknife, R + n (N[i] - R D[i]) / sum(D). It makes means of rows of scores that are none, such as
    the IoU of each class (pixels of intersection and union), so that the same intervals serve all. NaN where sum(D)
    is 0.
    Source: Efron. The Jackknife, the Bootstrap and Other Resampling Plans, 1982, section 6.2.
    """
    above, below = (np.asarray(counts, dtype=np.float64) for counts in (numerator, denominator))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = above.sum(0) / below.sum(0)
        return ratio + len(above) * (above - ratio * below) / below.sum(0)


def linearize_ap(scores: ArrayLike, shown: ArrayLike) -> Floats:
    """What each image says of the average precision of each class: (n, k), whose means are the average precisions.

    The infinitesimal jackknife, as in `linearize_ratio`: AP + n dAP / dw, where an image counts w times in every
    precision, P = A / B of a positive's rank, and in their mean. NaN where no image shows a class. An image of which
    that is not known, `shown` below 0, says nothing.
    """
    scores, shown = np.asarray(scores, dtype=np.float64), np.asarray(shown, dtype=np.float64)
    return np.stack([_linearize_ap(*column) for column in zip(scores.T, shown.T, strict=True)], axis=1)


def _linearize_ap(scores: Floats, shown: Floats) -> Floats:
    known = shown >= 0
    if not (shown > 0).any():
        return np.full(len(scores), np.nan)
    if not known.all():
        of_known = _linearize_ap(scores[known], shown[known])
        values = np.full(len(scores), of_known.mean())
        values[known] += (of_known - of_known.mean()) * (len(scores) / known.sum())
        return values
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], shown[order]
    last = np.searchsorted(-ranked, -ranked, side="right") - 1  # of those with an equal score
    first = np.searchsorted(-ranked, -ranked, side="left")
    found, said = hits.cumsum()[last], last + 1.0
    precision = found / said
    average = (hits * precision).sum() / hits.sum()
    # what one more image changes in the precision of each positive that is ranked as high or lower
    by_hit, by_any = ((hits * part)[::-1].cumsum()[::-1][first] for part in (1 / said, found / said**2))
    slope = (hits * (precision - average) + hits * by_hit - by_any) / hits.sum()
    values = np.empty_like(slope)
    values[order] = average + len(scores) * slope
    return values


def bootstrap_mean(values: ArrayLike, confidence: float = CONFIDENCE, *, seed: int = 0) -> tuple[float, float]:
    """The percentile interval of the mean of row values (n,), which are averaged over seeds, by resampling rows."""
    rows = np.asarray(values, dtype=np.float64)
    return bootstrap(lambda drawn: rows[drawn].mean(1), len(rows), confidence, seed=seed)


def bootstrap_iou(
    intersection: ArrayLike,
    union: ArrayLike,
    other_intersection: ArrayLike,
    other_union: ArrayLike,
    confidence: float = CONFIDENCE,
    *,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile interval of the difference of two mean IoUs, averaged over seeds, by resampling images.

    Takes pixels (seeds, n, k) of each image and class. The mean IoU is that of the classes which the resampled images
    hold.
    """
    arms = [np.asarray(counts, dtype=np.float64) for counts in (intersection, union, other_intersection, other_union)]
    rows = arms[0].shape[1]
    replicates = []
    for drawn in _draw_rows(rows, seed, held=max(rows, 64)):
        counts = np.stack([np.bincount(picked, minlength=rows) for picked in drawn]).astype(np.float64)
        sums = [np.einsum("bn,snk->bsk", counts, arm, optimize=True) for arm in arms]
        with np.errstate(invalid="ignore", divide="ignore"):
            ious = [np.nanmean(sums[i] / sums[i + 1], axis=2) for i in (0, 2)]
        replicates.append((ious[0] - ious[1]).mean(1))
    return _take_percentiles(replicates, confidence)


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], Floats], rows: int, confidence: float = CONFIDENCE, *, seed: int = 0
) -> tuple[float, float]:
    """The percentile interval of any statistic of resampled rows: drawn row numbers (b, n) -> (b,)."""
    return _take_percentiles([statistic(drawn) for drawn in _draw_rows(rows, seed)], confidence)


def _draw_rows(rows: int, seed: int, held: int = 1) -> Iterator[NDArray[np.int64]]:
    """Row numbers (b, n), drawn with replacement, a few of the `REPLICATES` at a time."""
    generator = np.random.default_rng(seed)
    at_once = max(1, CHUNK // max(rows, held))
    for start in range(0, REPLICATES, at_once):
        yield generator.integers(rows, size=(min(at_once, REPLICATES - start), rows))


def _take_percentiles(replicates: Sequence[Floats], confidence: float) -> tuple[float, float]:
    tail = 50 * (1 - confidence)
    low, high = np.percentile(np.concatenate(replicates), [tail, 100 - tail])
    return float(low), float(high)


def adjust_holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values: below the level, they claim that no true null hypothesis of all was rejected.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979), pages 65-70.

    >>> adjust_holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, number in enumerate(sorted(range(len(p_values)), key=lambda number: p_values[number])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[number]))
        adjusted[number] = highest
    return adjusted
