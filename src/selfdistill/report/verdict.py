"""The verdict on an arm in words, by a rule that is fixed before anything is trained."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .statistics import CONFIDENCE, LEAST_SEEDS, adjust_holm

USE, NOTHING, UNKNOWN, HURTS = "use it", "no evidence", "cannot tell", "it hurts"
SAME_COST = 1.10  # times the baseline's training time; below, equal epochs are equal time


class Rule(NamedTuple):
    """What decides a verdict; it is written into plan.json before the first run."""

    margin: float = 0.5  # points; a smaller gain is not worth a method
    confidence: float = CONFIDENCE
    least_seeds: int = LEAST_SEEDS

    def describe(self) -> str:
        level, margin = 100 * self.confidence, self.margin
        return (
            f"Differences are paired by seed. The interval is the {level:g} % one for other seeds and test images."
            f" p-values are Holm's over the arms. A difference of at least {margin:g} points whose p is below "
            f"{100 - level:g} % is a gain, or a loss. Any other is 'no evidence' if the interval can tell the margin: "
            f"it does not reach beyond both -{margin:g} and +{margin:g}, and half of it is at most {2 * margin:g} "
            f"points. Otherwise, and with fewer than {self.least_seeds} seeds, it is 'cannot tell'. A loss is 'it "
            f"hurts'. 'use it' needs a gain, and where training takes more than {SAME_COST:g} times as long, also a "
            "gain over the baseline that was trained as long."
        )


class Verdict(NamedTuple):
    arm: str
    verdict: str  # "use it" | "no evidence" | "cannot tell" | "it hurts"
    sentence: str


def adjust_rows(statistics: Sequence[Mapping[str, Any]]) -> list[float | None]:
    """Holm's p-values of several arms' statistics; None where there is no interval."""
    known = [number for number, values in enumerate(statistics) if values["interval"]]
    adjusted = adjust_holm([statistics[number]["interval"]["p"] for number in known])
    return [dict(zip(known, adjusted, strict=True)).get(number) for number in range(len(statistics))]


def judge(statistics: Mapping[str, Any], rule: Rule) -> str:
    """What the rule says of one paired difference alone."""
    interval = statistics["interval"]
    if interval is None or len(statistics["seeds"]) < rule.least_seeds:
        return UNKNOWN
    is_clear = statistics["p_holm"] < 1 - rule.confidence
    if is_clear and abs(interval["mean"]) >= rule.margin:
        return USE if interval["mean"] > 0 else HURTS
    low, high = interval["low"], interval["high"]
    sees_margin = not (low < -rule.margin and high > rule.margin) and (high - low) / 2 <= 2 * rule.margin
    return NOTHING if sees_margin else UNKNOWN


def give_verdict(row: Mapping[str, Any], rule: Rule, *, inference: str = "0 at inference") -> Verdict:
    """The verdict on the arm of a row, whose statistics are against the baseline and perhaps the one of equal cost."""
    statistics, longer = row["statistics"], row["at_equal_cost"]
    slowdown = row["run_slowdown"] or row["slowdown"]
    alone = judge(statistics, rule)
    decimals = 1 if rule.margin >= 0.5 else 2
    facts = [describe_difference(statistics, decimals, unit=" points")]
    facts += [f"{statistics['won']} of {len(statistics['differences'])} seeds"]
    facts += [] if slowdown is None else [f"{slowdown:.1f}x the training time", inference]
    head = f"{row['method']}: {', '.join(facts)}"
    if longer is not None:
        head += f"; at equal training time {describe_difference(longer, decimals)}"
    is_equal = row["equal_cost"] == statistics["against"] or slowdown is None or slowdown <= SAME_COST
    verdict, reason = _decide(alone, statistics, longer, rule, is_equal=is_equal)
    return Verdict(row["method"], verdict, f"{head}: {reason}.")


def _decide(
    alone: str, statistics: Mapping[str, Any], longer: Mapping[str, Any] | None, rule: Rule, *, is_equal: bool
) -> tuple[str, str]:
    """The verdict, and the end of its sentence."""
    limits = ", on these test images" if statistics["basis"] == "seeds" else ""
    beaten = None if longer is None else judge(longer, rule)
    if alone == HURTS:
        return HURTS, HURTS + limits
    if beaten == HURTS:
        return NOTHING, f"no evidence for it, as training longer is better{limits}"
    if alone == NOTHING:
        return NOTHING, f"no evidence of a gain of {rule.margin:g} points{limits}"
    if alone == UNKNOWN:
        return UNKNOWN, f"cannot tell; {_explain(statistics, rule)}"
    if beaten == NOTHING:
        return NOTHING, f"no evidence that it beats training longer{limits}"
    if longer is not None and beaten == UNKNOWN:
        return UNKNOWN, f"cannot tell whether it beats training longer; {_explain(longer, rule)}"
    if longer is None and not is_equal:
        return UNKNOWN, "cannot tell whether it beats training longer (controls=equal_cost does)"
    return USE, USE + limits


def _explain(statistics: Mapping[str, Any], rule: Rule) -> str:
    """What is too small to see the margin."""
    seeds, images, interval = len(statistics["seeds"]), statistics["images"], statistics["interval"]
    if seeds < rule.least_seeds:
        return f"{seeds} seed{'s give' if seeds != 1 else ' gives'} no interval, and {rule.least_seeds} do"
    if interval is None:
        return "some of its scores are not known"
    if interval["low"] > 0 or interval["high"] < 0:
        return f"alone it would be clear, and beside the other arms it may be chance (p {statistics['p_holm']:.2g})"
    error = statistics["image_error"]
    if error is not None and error**2 > interval["standard_error"] ** 2 / 2:
        return f"{images:,} test images are too few to see {rule.margin:g} points"
    return f"{seeds} seeds are too few to see {rule.margin:g} points"


def describe_difference(statistics: Mapping[str, Any], decimals: int = 1, *, unit: str = "") -> str:
    """A difference with its interval: "+1.4 points [0.6, 2.1]"."""
    if statistics["mean"] is None:
        return "an unknown difference"
    mean, interval = round(statistics["mean"], decimals) + 0.0, statistics["interval"]  # + 0.0: no negative zero
    if interval is None:
        return f"{mean:+.{decimals}f}{unit}"
    low, high = (round(interval[bound], decimals) + 0.0 for bound in ("low", "high"))
    return f"{mean:+.{decimals}f}{unit} [{low:.{decimals}f}, {high:.{decimals}f}]"
