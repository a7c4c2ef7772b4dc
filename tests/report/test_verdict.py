"""The verdict follows from the rule alone, and its sentence says what an engineer needs."""

from typing import Any

import pytest

from selfdistill.report.verdict import Rule, adjust_rows, give_verdict, judge


def statistics(
    mean: float, half: float | None, *, seeds: int = 5, p: float | None = None, image_error: float | None = 0.1
) -> dict[str, Any]:
    """A difference with an interval of this half width; `half` None: without one."""
    found = None
    if half is not None:
        p = p if p is not None else 0.01 if abs(mean) > half else 0.5
        found = {"mean": mean, "low": mean - half, "high": mean + half, "p": p, "standard_error": half / 2}
    return {
        "against": "baseline",
        "seeds": [*range(seeds)],
        "differences": [mean] * seeds,
        "mean": mean,
        "won": seeds if mean > 0 else 0,
        "images": 1234,
        "basis": "seeds and test images",
        "interval": found,
        "image_error": image_error,
        "p_holm": p,
    }


def row(alone: dict[str, Any], longer: dict[str, Any] | None = None, slowdown: float | None = 1.9) -> dict[str, Any]:
    return {
        "method": "frskd",
        "statistics": alone,
        "at_equal_cost": longer,
        "equal_cost": longer and "longer",
        "slowdown": slowdown,
        "run_slowdown": None,
    }


def test_the_sentence_of_the_rule_as_it_was_asked_for():
    verdict = give_verdict(row(statistics(1.35, 0.75), statistics(0.3, 0.7)), Rule())
    assert verdict.sentence == (
        "frskd: +1.4 points [0.6, 2.1], 5 of 5 seeds, 1.9x the training time, 0 at inference; "
        "at equal training time +0.3 [-0.4, 1.0]: no evidence that it beats training longer."
    )
    assert verdict.verdict == "no evidence"


@pytest.mark.parametrize(
    ("mean", "half", "expected"),
    [
        (1.0, 0.4, "use it"),
        (-1.0, 0.4, "it hurts"),
        (0.2, 0.1, "no evidence"),  # clear, and smaller than the margin
        (0.0, 0.4, "no evidence"),
        (0.0, 0.6, "cannot tell"),  # a gain of the margin and a loss of it are both possible
        (1.0, 5.0, "cannot tell"),
        (0.6, 1.0, "no evidence"),
    ],
)
def test_what_a_difference_says(mean, half, expected):
    assert judge(statistics(mean, half), Rule()) == expected


def test_few_seeds_cannot_tell_whatever_they_say():
    for seeds in (1, 2):
        verdict = give_verdict(row(statistics(9.0, None, seeds=seeds)), Rule())
        assert verdict.verdict == "cannot tell" and f"{seeds} seed" in verdict.sentence


def test_what_is_clear_alone_is_not_beside_many_arms():
    verdict = give_verdict(row(statistics(1.0, 0.9, p=0.2), slowdown=1.0), Rule())
    assert verdict.verdict == "cannot tell" or verdict.verdict == "no evidence"
    verdict = give_verdict(row(statistics(4.0, 3.0, p=0.2), slowdown=1.0), Rule())
    assert verdict.verdict == "cannot tell" and "beside the other arms it may be chance (p 0.2)" in verdict.sentence


@pytest.mark.parametrize(
    ("longer", "expected", "words"),
    [
        (statistics(1.0, 0.4), "use it", "use it"),
        (statistics(0.1, 0.3), "no evidence", "no evidence that it beats training longer"),
        (statistics(-1.0, 0.3), "no evidence", "training longer is better"),
        (statistics(1.0, 3.0, image_error=1.4), "cannot tell", "1,234 test images are too few to see 0.5 points"),
        (statistics(1.0, 3.0), "cannot tell", "5 seeds are too few to see 0.5 points"),
        (None, "cannot tell", "controls=equal_cost"),
    ],
)
def test_a_gain_counts_only_against_training_longer(longer, expected, words):
    verdict = give_verdict(row(statistics(2.0, 0.5), longer), Rule())
    assert verdict.verdict == expected and words in verdict.sentence


def test_an_arm_that_costs_no_more_needs_no_longer_baseline():
    assert give_verdict(row(statistics(2.0, 0.5), slowdown=1.05), Rule()).verdict == "use it"
    assert give_verdict(row(statistics(2.0, 0.5), slowdown=None), Rule()).verdict == "use it"


def test_what_training_longer_beats_is_not_worth_it_even_where_it_may_help():
    verdict = give_verdict(row(statistics(1.0, 3.0), statistics(-5.0, 1.0)), Rule())
    assert verdict.verdict == "no evidence" and "training longer is better" in verdict.sentence


def test_a_harm_stays_one_beside_a_longer_baseline():
    assert give_verdict(row(statistics(-2.0, 0.5), statistics(-3.0, 0.5)), Rule()).verdict == "it hurts"


def test_holms_correction_leaves_out_arms_without_an_interval():
    rows = [statistics(1.0, 0.5, p=0.02), statistics(1.0, None, seeds=1), statistics(1.0, 0.5, p=0.03)]
    assert adjust_rows(rows) == [0.04, None, 0.04]


def test_the_rule_is_told_with_its_numbers():
    words = Rule(margin=0.3).describe()
    assert "0.3 points" in words and "95 %" in words and "0.6 points" in words
