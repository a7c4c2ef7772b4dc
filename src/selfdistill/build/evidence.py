"""What was measured of the methods, always beside plain training of the same time, and what it says of a run.

evidence.json has it. `benchmarks/accuracy/when.py` writes that from the results.
"""

import functools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..config.recipe import MethodPart, Recipe
from ..data import BatchSampler, OpenedData
from ..tasks import find_task, starts_trained
from ..training.optim import count_steps
from .arms import build_arm_recipe

EVIDENCE = Path(__file__).with_name("evidence.json")
PLAIN = "baseline"
FIND_OUT = "`selfdistill compare` with these settings and controls=auto finds out for your data"
WITHIN = {"images": 4.0, "classes": 4.0, "epochs": 2.0}  # factors by which a run that is alike may differ
SAME_LENGTH = 1.25  # factor by which the lengths of runs that are compared with each other may differ
BEYOND = 1.05  # times as long as the longest plain run an arm may have taken, to count as compared in equal time


class Interval(NamedTuple):
    """A mean over seeds, and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


class Entry(NamedTuple):
    """An arm on a family of tasks, trained for one length; gains are over plain training of the same time.

    Without a price, or with fewer than three seeds, there are none.
    """

    family: str
    task: str
    start: str  # as in `Situation`
    images: int
    classes: int
    epochs: int
    steps: int
    arm: str
    price: float | None  # plain steps that a step takes, by processor time
    longest: int  # epochs of the longest plain run beside it
    seeds: Sequence[int]
    score: str  # that `gain` is of, in points
    gain: Interval | None
    nll_gain: Interval | None  # nats; + is better
    nll_score: str  # that `nll_gain` is of: at the fitted temperature, if known

    @property
    def is_measured(self) -> bool:
        """Whether it was compared with plain training of the same time, with seeds enough for an interval."""
        is_compared = self.gain is not None and self.nll_gain is not None and self.price is not None
        return is_compared and self.price * self.epochs <= BEYOND * self.longest


class Situation(NamedTuple):
    """What decides about the method of a run."""

    task: str
    start: str  # random | trained | partly frozen
    images: int
    classes: int
    epochs: float

    def __str__(self) -> str:
        images = f"{self.images:,} image{'s' * (self.images != 1)} in {self.classes} class{'es' * (self.classes != 1)}"
        return f"{self.task} of {images} from {self.start} weights, {self.epochs:.3g} epoch{'s' * (self.epochs != 1)}"


@functools.cache
def read_evidence() -> tuple[Entry, ...]:
    """What was measured."""
    return tuple(map(make_entry, json.loads(EVIDENCE.read_text(encoding="utf-8"))))


def make_entry(values: Mapping[str, Any]) -> Entry:
    """An entry of the plain values that evidence.json has."""
    gains = {name: values[name] and Interval(*values[name]) for name in ("gain", "nll_gain")}
    return Entry(**{**values, **gains})


def describe_situation(recipe: Recipe, opened: OpenedData) -> Situation:
    train = opened.open_splits(recipe.data, find_task(recipe.task.kind)).train
    plan = BatchSampler(len(train), recipe.batch_size, seed=recipe.seed, drop_last=recipe.data.drop_last)
    epochs = count_steps(recipe, plan.steps_per_epoch)[0] / plan.steps_per_epoch
    start = "partly frozen" if recipe.student.freeze else "trained" if starts_trained(recipe) else "random"
    return Situation(recipe.task.kind, start, len(train), len(train.classes), epochs)


def is_alike(entry: Entry, situation: Situation) -> bool:
    """Whether what was measured says something about a run: same task and start, of about the same size and length."""
    is_same_kind = (entry.task, entry.start) == (situation.task, situation.start)
    return is_same_kind and entry.is_measured and max(measure_distances(entry, situation)) <= 1


def measure_distances(entry: Entry, situation: Situation) -> list[float]:
    """How far images, classes and epochs are apart, by their logarithms; 1 is as far as may be."""
    return [
        abs(math.log(getattr(entry, name) / getattr(situation, name))) / math.log(within)
        for name, within in WITHIN.items()
    ]


def find_alike(entries: Sequence[Entry], situation: Situation) -> list[list[Entry]]:
    """What was measured in runs like this one: of every family that is alike its nearest length; the nearest first.

    Lengths that hardly differ count as one, as label smoothing may have been trained for the time of another arm. Each
    arm is there once, at the nearest of them.
    """
    families: dict[str, dict[str, Entry]] = {}
    alike = [entry for entry in entries if is_alike(entry, situation)]
    for entry in sorted(alike, key=lambda entry: sum(measure_distances(entry, situation))):
        found = families.setdefault(entry.family, {})
        nearest = next(iter(found.values()), entry).epochs
        if max(entry.epochs, nearest) <= SAME_LENGTH * min(entry.epochs, nearest):
            found.setdefault(entry.arm, entry)
    return [[*found.values()] for found in families.values()]


def find_nearest(entries: Sequence[Entry], situation: Situation) -> list[Entry]:
    """What was measured with the family and about the length that are nearest to a run; empty where none is alike."""
    return next(iter(find_alike(entries, situation)), [])


def describe_gains(entry: Entry) -> str:
    """Both gains, and how sure they are."""
    sure = f"+ is better; 95 % intervals over {len(entry.seeds)} seeds of one network"
    return f"{list_gains(entry)} ({sure})"


def list_gains(entry: Entry) -> str:
    """Both gains with their intervals."""
    (gain, low, high), (nll, nll_low, nll_high) = entry.gain, entry.nll_gain
    points = f"{gain:+.1f} points of {entry.score} [{low:.1f}, {high:.1f}]"
    return f"{points} and {nll:+.3f} nats of {entry.nll_score} [{nll_low:.3f}, {nll_high:.3f}]"


def note_evidence(recipe: Recipe, opened: OpenedData) -> list[str]:
    """What was found of the run's method in the runs that are most like it; nothing of a method that was not measured.

    The recipe has all hyper-parameters, also those that were chosen for the run's length. Of the arms whose settings
    the run has it is that with most settings; those that the run changes beside may matter. Where another form of the
    method gained more, that is said too.
    """
    name = recipe.method.name
    entries = [entry for entry in read_evidence() if entry.arm.split("+")[0] == name and entry.is_measured]
    if not entries or name == PLAIN:
        return []
    situation = describe_situation(recipe, opened)
    fitting = find_nearest([entry for entry in entries if has_settings(recipe, entry.arm)], situation)
    if not fitting:
        return [f"evidence: nothing like {situation} was measured with {name}; {FIND_OUT}"]
    entry = max(fitting, key=lambda entry: len(entry.arm.split("+")))
    like = f"{describe_likeness(entry)} with such settings"
    said = f"evidence: {like}, {entry.arm} {describe_verdict(entry)}: {describe_gains(entry)}"
    there = [other for other in entries if (other.family, other.epochs) == (entry.family, entry.epochs)]
    best = max(there, key=lambda other: other.gain.mean)
    if best.gain.mean <= entry.gain.mean:
        return [said]
    return [f"{said}; the form of it that gained most there is {best.arm}: {list_gains(best)}"]


def has_settings(recipe: Recipe, arm: str) -> bool:
    """Whether a recipe of the arm's method has the hyper-parameters that the arm sets; it has others too."""
    plain = recipe.model_copy(update={"method": MethodPart(name=PLAIN)})
    try:
        of_arm = build_arm_recipe(plain, arm).method.hyperparameters
    except ValueError:  # a setting that is no longer there
        return False
    settings = recipe.method.hyperparameters
    return all(settings.get(name) == value for name, value in of_arm.items())


def describe_verdict(entry: Entry) -> str:
    """What was found, by the intervals of the score and then of NLL."""
    beside = "plain training of the same time"
    for gain, score in ((entry.gain, entry.score), (entry.nll_gain, entry.nll_score)):
        if gain.low > 0 or gain.high < 0:
            return f"{'beat' if gain.low > 0 else 'lost to'} {beside} in {score}"
    return f"could not be told from {beside}"


def describe_likeness(entry: Entry) -> str:
    return f"with {entry.family}, {entry.epochs} epochs, which is the most like this run of what was measured"
