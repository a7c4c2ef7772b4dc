"""Intervals are those of scipy where it has them, and cover what they claim in simulated comparisons."""

import warnings

import numpy as np
import pytest
import scipy.stats

from selfdistill.report import statistics as stats


def test_the_interval_over_seeds_is_that_of_the_paired_t_test():
    generator = np.random.default_rng(0)
    for seeds in (3, 5, 10):
        one, other = generator.normal(size=(2, seeds)) + [[0.7], [0]]
        ours, theirs = stats.compare_pairs(one - other), scipy.stats.ttest_rel(one, other)
        interval = theirs.confidence_interval(0.95)
        assert ours.p == pytest.approx(theirs.pvalue, rel=0.0)
        assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high), rel=0.0)


def test_two_seeds_have_no_interval():
    assert stats.compare_pairs([0.1, 0.2]) is None and stats.compare_both(np.zeros((2, 50))) is None


@pytest.mark.parametrize(("value", "p"), [(0.0, 1.0), (0.1, 0.0)])
def test_seeds_that_all_say_the_same_leave_no_error(value, p):
    for found in (stats.compare_pairs([value] * 4), stats.compare_both(np.full((4, 9), value))):
        assert (found.low, found.high, found.p) == (pytest.approx(value), pytest.approx(value), p)


def test_the_bootstrap_is_that_of_scipy_up_to_its_draws():
    values = np.random.default_rng(1).exponential(size=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = scipy.stats.bootstrap(
            (values,), np.mean, n_resamples=5000, method="percentile", vectorized=True, random_state=2
        ).confidence_interval
    assert stats.bootstrap_mean(values) == pytest.approx((theirs.low, theirs.high), abs=0.02)
    assert stats.bootstrap_mean(values) == stats.bootstrap_mean(values)
    assert stats.bootstrap(lambda drawn: values[drawn].mean(1), 300) == stats.bootstrap_mean(values)


def simulate(cases, seeds, rows, *, of_seed, of_row, residual, seed):
    """Differences (cases, seeds, rows) of mean 0 with normal effects of these standard deviations."""
    draw = np.random.default_rng(seed).normal
    shapes = [(cases, seeds, 1), (cases, 1, rows), (cases, seeds, rows)]
    return sum(draw(size=shape) * scale for scale, shape in zip((of_seed, of_row, residual), shapes, strict=True))


def share_covered(intervals):
    return np.mean([found.low <= 0 <= found.high for found in intervals])


def test_95_percent_over_seeds_cover_95_percent_of_simulated_cases():
    for seeds in (3, 5, 10):
        cases = np.random.default_rng(seeds).normal(size=(4000, seeds))
        assert 0.93 <= share_covered(map(stats.compare_pairs, cases)) <= 0.97


@pytest.mark.parametrize(
    ("seeds", "rows", "of_seed", "of_row", "residual"),
    [
        (5, 100, 0.3, 1.0, 2.0),  # both errors matter
        (5, 100, 0.01, 1.0, 1.0),  # the test set is all
        (5, 100, 1.0, 1.0, 2.0),  # the seeds are all
        (10, 200, 0.1, 1.0, 3.0),
        (3, 300, 0.15, 1.0, 2.0),
        (3, 50, 0.0, 0.0, 1.0),  # neither: chance alone
        (5, 200, 0.0, 0.1, 1.0),
    ],
)
def test_95_percent_over_seeds_and_rows_cover_95_percent(seeds, rows, of_seed, of_row, residual):
    cases = simulate(2000, seeds, rows, of_seed=of_seed, of_row=of_row, residual=residual, seed=3)
    assert 0.93 <= share_covered(map(stats.compare_both, cases)) <= 0.97


def test_rows_alone_and_seeds_alone_claim_too_much_where_both_matter():
    cases = simulate(1000, 5, 100, of_seed=0.1, of_row=1.0, residual=1.0, seed=4)
    assert share_covered(stats.compare_pairs(case.mean(1)) for case in cases) < 0.85
    by_rows = [stats.estimate(float(case.mean()), stats.measure_row_error(case), 99.0) for case in cases]
    assert share_covered(by_rows) < 0.93 < share_covered(map(stats.compare_both, cases))


def test_right_and_wrong_answers_are_covered_too():
    draw, intervals = np.random.default_rng(5), []
    for _ in range(1500):
        rate = np.clip(draw.beta(4, 1, size=(1, 200)) + draw.normal(0, 0.02, size=(2, 5, 1)), 0, 1)
        right = draw.random((2, 5, 200)) < rate
        intervals.append(stats.compare_both(right[0].astype(np.float64) - right[1]))
    assert 0.93 <= share_covered(intervals) <= 0.97


def test_ten_seeds_of_nothing_claim_a_gain_in_no_more_than_the_nominal_share():
    """Three arms that share one baseline of ten seeds, after Holm's correction: a family-wise error of 5 %."""
    draw, claims = np.random.default_rng(6), 0
    cases = 1000
    for _ in range(cases):
        effects = draw.normal(size=(4, 10, 1)) * 0.1 + draw.normal(size=(4, 1, 100)) * 0.5
        scores = effects + draw.normal(size=(4, 10, 100))
        found = [stats.compare_both(arm - scores[0]) for arm in scores[1:]]
        claims += any(p < 0.05 for p in stats.adjust_holm([one.p for one in found]))
    assert claims / cases <= 0.06


def draw_counts(seeds=3, images=40, classes=4):
    draw = np.random.default_rng(7)
    union = draw.integers(1, 100, size=(2, seeds, images, classes))
    return (union * draw.random((2, seeds, images, classes))).astype(int), union


def test_pseudo_values_average_to_the_iou_and_vary_like_the_bootstrap():
    hits, union = draw_counts()
    values = stats.linearize_ratio(hits[0, 0], union[0, 0])
    np.testing.assert_allclose(values.mean(0), hits[0, 0].sum(0) / union[0, 0].sum(0))
    linear = np.stack(
        [
            [stats.linearize_ratio(*pair).mean(1) for pair in zip(*arm, strict=True)]
            for arm in zip(hits, union, strict=True)
        ]
    )
    averaged = (linear[0] - linear[1]).mean(0)
    low, high = stats.bootstrap_iou(hits[0], union[0], hits[1], union[1])
    assert (high - low) / 3.92 == pytest.approx(stats.measure_row_error([averaged]), rel=0.1)
    assert low < averaged.mean() < high


def test_the_bootstrap_of_iou_is_a_loop_over_resampled_images():
    hits, union = draw_counts(images=10)
    drawn = np.concatenate([*stats._draw_rows(10, 0, held=64)])
    iou = [
        [(h[rows].sum(0) / u[rows].sum(0)).mean() for h, u in zip(*arm, strict=True)]
        for rows in drawn
        for arm in zip(hits, union, strict=True)
    ]
    one, other = np.array(iou).mean(1).reshape(-1, 2).T
    expected = np.percentile(one - other, [2.5, 97.5])
    assert stats.bootstrap_iou(hits[0], union[0], hits[1], union[1]) == pytest.approx(tuple(expected))


def test_a_class_that_never_occurs_has_no_iou_and_does_not_count():
    hits, union = draw_counts()
    hits[..., 2] = union[..., 2] = 0
    assert np.isnan(stats.linearize_ratio(hits[0, 0], union[0, 0])[:, 2]).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(stats.bootstrap_iou(hits[0], union[0], hits[1], union[1])).all()


def test_holm_is_the_step_down_procedure():
    p_values = [0.001, 0.02, 0.03, 0.5]
    assert stats.adjust_holm(p_values) == pytest.approx([0.004, 0.06, 0.06, 0.5])
    assert stats.adjust_holm([]) == [] and stats.adjust_holm([0.7, 0.9]) == [1.0, 1.0]
