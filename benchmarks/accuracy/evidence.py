"""What the runs of worth.py say: scores of arms beside plain training of the same length, and of the same time.

Pure functions of the files that worth.py writes; PROTOCOL.md has the rules.
"""

import itertools
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from families import LATER

from selfdistill.report.statistics import Estimate, compare_pairs

Scores = Mapping[int, Mapping[int, float]]  # epochs -> seed -> score
TITLES = {"top1": "top-1, %", "miou": "mean IoU, %"}  # of main scores
LIKELIHOODS = {"nll_at_temperature": "NLL at the fitted temperature", "nll": "NLL"}
ENOUGH = 1.1  # times as long as the longest plain run of its seed an arm may have taken, to be compared with that
SAME_TIME = 1.03  # times as long as another a run may take, and count as no longer
ALWAYS_FREE = ("ramp", "temperature", "optim.method_lr", "optim.method_decay")  # settings that cost no step more
SIGNS = {"top1": 100.0, "miou": 100.0, "nll": -1.0, "nll_at_temperature": -1.0}  # so that more is better


class Arm(NamedTuple):
    """A method with its settings, trained for so many epochs."""

    name: str
    epochs: int

    @classmethod
    def parse(cls, text: str) -> "Arm":
        """
        >>> Arm.parse("frskd+start=0.5+epochs=20"), Arm.parse("baseline+epochs=20+mix=cutmix")
        (Arm(name='frskd+start=0.5', epochs=20), Arm(name='baseline+mix=cutmix', epochs=20))
        """
        name, *words = text.split("+")
        epochs = [int(word.removeprefix("epochs=")) for word in words if word.startswith("epochs=")]
        others = [word for word in words if not word.startswith("epochs=")]
        return cls("+".join([name, *others]), epochs[0])


class Finding(NamedTuple):
    """An arm beside plain training, in points or nats; positive where the arm is better."""

    arm: Arm
    price: float  # plain steps that a step takes
    seeds: list[int]
    score: float  # the mean, as it is
    spread: float  # the standard deviation over seeds
    in_epochs: list[float]  # differences from plain training of the same epochs, for each seed
    in_time: list[float]  # from plain training of the same time
    longest: int  # epochs of the longest plain run of these seeds

    @property
    def equal_time(self) -> Estimate | None:
        """The gain in the same time with its interval; None with fewer than three seeds."""
        return compare_pairs(self.in_time)

    @property
    def is_dearer(self) -> bool:
        """Whether the arm took longer than the longest plain run, with which it is compared then."""
        return self.price * self.arm.epochs > self.longest


class Study:
    """The finished runs of one family."""

    def __init__(self, runs: Mapping[str, Sequence[Mapping[str, Any]]], prices: Mapping[str, float]) -> None:
        self._prices = {"baseline": 1.0, **prices}
        self.arms = {Arm.parse(name): {run["seed"]: run for run in of_arm} for name, of_arm in runs.items()}

    def find_price(self, name: str) -> float:
        """How many plain steps a step of an arm takes, given without its epochs; nan if it was not measured.

        What only changes the size of a number, such as the ramp, need not be measured again.
        """
        kind, *words = name.split("+")
        costly = "+".join([kind, *(word for word in words if not is_free(word))])
        return self._prices.get(name, self._prices.get(costly, math.nan))

    def count_steps(self, arm: Arm) -> int:
        return next(iter(self.arms[arm].values()))["step"]

    def list_arms(self) -> list[Arm]:
        return sorted(arm for arm in self.arms if arm.name != "baseline")

    def read_plain(self, score: str) -> dict[int, dict[int, float]]:
        """The plain network's scores by length and seed."""
        plain = {arm.epochs: runs for arm, runs in self.arms.items() if arm.name == "baseline"}
        return {
            epochs: {seed: run[score] for seed, run in runs.items() if run.get(score) is not None}
            for epochs, runs in sorted(plain.items())
        }

    def judge(self, arm: Arm, score: str, seeds: Sequence[int] | None = None) -> Finding | None:
        """An arm against plain training with the same seeds; None where nothing is there to compare."""
        sign, plain = SIGNS[score], self.read_plain(score)
        runs = {seed: run for seed, run in self.arms[arm].items() if seeds is None or seed in seeds}
        values = {seed: run[score] for seed, run in runs.items() if run.get(score) is not None}
        price = self.find_price(arm.name)
        if not values:
            return None
        there = sorted(values)
        longest = {seed: max((length for length, of in plain.items() if seed in of), default=0) for seed in there}
        needed = min(price * arm.epochs, max(longest.values()))
        equal, timed = [], []
        for seed in there:
            if seed in plain.get(arm.epochs, {}):
                equal.append(sign * (values[seed] - plain[arm.epochs][seed]))
            if ENOUGH * longest[seed] < needed:  # its longer plain run is still to come
                continue
            if (as_long := interpolate(plain, price * arm.epochs, seed)) is not None:
                timed.append(sign * (values[seed] - as_long))
        return Finding(
            arm,
            price,
            there,
            statistics.fmean(values.values()),
            statistics.stdev(values.values()) if len(values) > 1 else 0.0,
            equal,
            timed,
            max(longest.values()),
        )


def is_free(word: str) -> bool:
    """Whether a setting such as "ramp=0.3" leaves a step's operations as they are.

    >>> [is_free(word) for word in ("ramp=0", "alpha=4", "alpha=0", "width=1")]
    [True, True, False, False]
    """
    name, _, value = word.partition("=")
    return name in ALWAYS_FREE or (name in ("alpha", "beta") and float(value) != 0)


def find_frontier(study: Study, score: str, seeds: Sequence[int]) -> list[Arm]:
    """The runs, plain ones too, that no other beats in as much time or less, by time; means over the seeds.

    Only what was trained with all of these seeds counts, and has a price. Times that differ by less than prices do from
    one measurement to the next are the same. Without a plain run there is nothing to beat, and no frontier.
    """
    known = []
    for arm, runs in study.arms.items():
        values = [SIGNS[score] * runs[seed][score] for seed in seeds if runs.get(seed, {}).get(score) is not None]
        if len(values) == len(seeds) and not math.isnan(price := study.find_price(arm.name)):
            known.append((price * arm.epochs, statistics.fmean(values), arm))
    if not any(arm.name == "baseline" for _, _, arm in known):
        return []
    return [
        arm
        for time, value, arm in sorted(known)
        if not any(other > value and spent <= SAME_TIME * time for spent, other, _ in known)
    ]


def list_seeds(study: Study) -> list[int]:
    return sorted({seed for runs in study.arms.values() for seed in runs})


def list_later(study: Study) -> list[int]:
    """The seeds that confirm."""
    return [seed for seed in list_seeds(study) if seed >= LATER]


def find_score(study: Study) -> tuple[str, str]:
    """The main score of the runs, and its title."""
    run = next(run for runs in study.arms.values() for run in runs.values())
    score = "miou" if run.get("miou") is not None else "top1"
    return score, TITLES[score]


def find_likelihood(study: Study, seeds: Sequence[int]) -> tuple[str, str]:
    """By which NLL arms are compared, and its title: at the fitted temperature, if all runs of the seeds have that.

    Plain training that goes on becomes too sure, which a temperature mends at no cost: without it every arm that was
    stopped earlier would seem to gain.
    """
    runs = [of_arm[seed] for of_arm in study.arms.values() for seed in seeds if seed in of_arm]
    is_there = bool(runs) and all(run.get("nll_at_temperature") is not None for run in runs)
    score = "nll_at_temperature" if is_there else "nll"
    return score, LIKELIHOODS[score]


def interpolate(plain: Scores, epochs: float, seed: int) -> float | None:
    """The plain score of a seed after so many epochs, between the lengths beside it, by their logarithms.

    Beyond the longest it is that of the longest; None where the seed, or a length so short, was not trained.

    >>> interpolate({10: {0: 1.0}, 40: {0: 3.0}}, 20, 0), interpolate({10: {0: 1.0}}, 30, 0), interpolate({}, 1, 0)
    (2.0, 1.0, None)
    >>> interpolate({36: {0: 1.0}}, 35.6, 0), interpolate({36: {0: 1.0}}, 30, 0)
    (1.0, None)
    """
    points = sorted((length, scores[seed]) for length, scores in plain.items() if seed in scores)
    if not points or math.isnan(epochs) or epochs < 0.97 * points[0][0]:
        return None
    epochs = max(epochs, points[0][0])
    if epochs >= points[-1][0]:
        return points[-1][1]
    for (low, first), (high, second) in itertools.pairwise(points):
        if low <= epochs <= high:
            share = math.log(epochs / low) / math.log(high / low)
            return first + share * (second - first)
    return None


def read_study(results: Path, family: str, machine: str | None = None) -> Study:
    """The runs and prices of a family.

    Prices are those that were measured on `machine`; without one those of the first, and of the next what it lacks.
    """
    runs = json.loads((results / f"worth-{family}.json").read_text(encoding="utf-8"))
    path = results / f"prices-{family}.json"
    machines = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    prices: dict[str, Any] = {}
    for each in [machine] if machine is not None else reversed([*machines]):
        prices |= machines[each]
    return Study(runs, {arm: price["slowdown"] for arm, price in prices.items()})
