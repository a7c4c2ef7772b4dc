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
from ..methods import find_method
from ..tasks import find_task, starts_trained
from ..training.optim import count_steps
from .arms import build_arm_recipe

EVIDENCE = Path(__file__).with_name("evidence.json")
PLAIN = "baseline"
EVIDENCE_NOTE = "evidence: "  # what the note begins with
FIND_OUT = "a comparison (`selfdistill compare`, with controls=auto) finds out for your data"
WITHIN = {"images": 4.0, "classes": 4.0, "epochs": 2.0, "steps": 3.0}  # factors by which a run that is alike may differ
OTHER_SETTINGS = ("mix.name", "task.loss", "task.label_smoothing", "optim.ema")  # that change what a network learns
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
    steps: int

    def __str__(self) -> str:
        epochs = f"{self.epochs:.3g}" if self.epochs < 100 else f"{self.epochs:,.0f}"
        length = f"{epochs} epoch{'s' * (self.epochs != 1)}, {self.steps:,} step{'s' * (self.steps != 1)}"
        images = f"{self.images:,} image{'s' * (self.images != 1)}, {self.classes:,} class{'es' * (self.classes != 1)}"
        return f"{self.task}, {images}, {self.start} weights, {length}"


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
    steps = count_steps(recipe, plan.steps_per_epoch)[0]
    start = "partly frozen" if recipe.student.freeze else "trained" if starts_trained(recipe) else "random"
    epochs = steps / plan.steps_per_epoch
    return Situation(recipe.task.kind, start, len(train), len(train.classes), epochs, steps)


def is_alike(entry: Entry, situation: Situation) -> bool:
    """Whether what was measured says something about a run: same task and start, of about the same size and length."""
    is_same_kind = (entry.task, entry.start) == (situation.task, situation.start)
    return is_same_kind and entry.is_measured and max(measure_distances(entry, situation)) <= 1


def measure_distances(entry: Entry, situation: Situation) -> list[float]:
    """How far images, classes, epochs and steps are apart, by their logarithms; 1 is as far as may be."""
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


def describe_gains(entry: Entry) -> str:
    """Both gains, and how sure they are."""
    sure = f"+ is better; 95 % intervals over {len(entry.seeds)} seeds of one network"
    return f"{list_gains(entry)} ({sure})"


def list_gains(entry: Entry) -> str:
    """Both gains with their intervals."""
    points = f"{entry.gain.mean:+.1f} points of {entry.score} {describe_ends(entry.gain, 1)}"
    return f"{points} and {entry.nll_gain.mean:+.3f} nats of {entry.nll_score} {describe_ends(entry.nll_gain, 3)}"


def describe_ends(interval: Interval, digits: int) -> str:
    """The ends of an interval; one that would be rounded to zero keeps a digit, so that its side of zero is seen.

    >>> describe_ends(Interval(1.0, 0.03, 1.96), 1)
    '[0.03, 2.0]'
    """
    low, high = (
        f"{end:.{digits}f}" if round(end, digits) or not end else f"{end:.1g}" for end in (interval.low, interval.high)
    )
    return f"[{low}, {high}]"


def note_evidence(recipe: Recipe, opened: OpenedData) -> list[str]:
    """What was found of the run's method in the runs that are most like it; nothing of a method that was not measured.

    The recipe has all hyper-parameters, also those that were chosen for the run's length. It is the arm that differs
    from the run in the fewest settings, and of these the one with the nearest family and length; what differs is said.
    Where another form of the method gained more, that is said too.
    """
    name = recipe.method.name
    entries = [entry for entry in read_evidence() if entry.arm.split("+")[0] == name and entry.is_measured]
    if not entries or name == PLAIN:
        return []
    situation = describe_situation(recipe, opened)
    alike = [entry for entry in entries if is_alike(entry, situation)]
    candidates = [(entry, find_differences(recipe, entry, situation)) for entry in alike]
    known = [(entry, differences) for entry, differences in candidates if differences is not None]
    if not known:
        return [f"{EVIDENCE_NOTE}nothing like this run was measured with {name} ({situation}); {FIND_OUT}"]
    entry, differences = min(known, key=lambda pair: (len(pair[1]), sum(measure_distances(pair[0], situation))))
    sentences = [f"{describe_likeness(entry)}, {entry.arm} {describe_verdict(entry)}: {describe_gains(entry)}"]
    if differences:
        sentences.append(f"unlike this run it had {', '.join(differences)}")
    there = [other for other in entries if (other.family, other.epochs) == (entry.family, entry.epochs)]
    best = max(there, key=lambda other: other.gain.mean)
    if best.gain.mean > entry.gain.mean:
        did = "gained most" if best.gain.mean > 0 else "lost least"
        sentences.append(f"the form of it that {did} there is {best.arm}: {list_gains(best)}")
    return [f"{EVIDENCE_NOTE}{'; '.join(sentences)}"]


def find_differences(recipe: Recipe, entry: Entry, situation: Situation) -> list[str] | None:
    """The settings of an arm of the recipe's method that a run has otherwise, in words; None if it is no arm any more.

    What neither sets is what the method takes in a run of that length and start, so it is the same.
    """
    try:
        of_arm = lay_over(recipe, entry.arm)
    except ValueError:  # a setting that is no longer there
        return None
    method, output = find_method(recipe.method.name), find_task(recipe.task.kind).output
    named = of_arm.method.hyperparameters
    chosen = method.short_run_defaults(output, named, situation.steps, is_tuning=starts_trained(recipe))
    its, here = {**method.defaults(output), **named, **chosen}, recipe.method.hyperparameters
    pairs: dict[str, tuple[Any, Any]] = {f"method.{name}": (value, here.get(name)) for name, value in its.items()}
    pairs["method.taps"] = of_arm.method.taps, recipe.method.taps
    before, after, now = (flatten_settings(each) for each in (lay_over(recipe, PLAIN), of_arm, recipe))
    names = [name for name in before if name in OTHER_SETTINGS or after[name] != before[name]]
    pairs |= {name: (after[name], now[name]) for name in names}
    differing = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
    return [f"{name}={json.dumps(there)} (not {json.dumps(now)})" for name, (there, now) in differing.items()]


def note_other_settings(recipe: Recipe, arm: str) -> list[str]:
    """A sentence about settings beside the method's that a recipe has and the runs of an arm had not."""
    usual, there, here = (flatten_settings(each) for each in (Recipe(), lay_over(recipe, arm), recipe))
    words = [f"{name}={here[name]}" for name in OTHER_SETTINGS if here[name] not in (there[name], usual[name])]
    return [f"all of this was measured without {' '.join(words)}"] if words else []


def lay_over(recipe: Recipe, arm: str) -> Recipe:
    """An arm's recipe without the other settings of a recipe that change what a network learns."""
    usual = Recipe()
    update: dict[str, Any] = {"method": MethodPart(name=PLAIN), "mix": usual.mix}
    update["task"] = recipe.task.model_copy(update={"loss": None, "label_smoothing": usual.task.label_smoothing})
    update["optim"] = recipe.optim.model_copy(update={"ema": None})
    return build_arm_recipe(recipe.model_copy(update=update), arm)


def flatten_settings(recipe: Recipe) -> dict[str, Any]:
    """All settings but the method's by their full names; the loss is null where it is the task's own."""
    settings = {name: value for name, value in recipe.flatten().items() if not name.startswith("method.")}
    is_usual = settings["task.loss"] in find_task(recipe.task.kind).losses[:1]
    return settings | {"task.loss": None if is_usual else settings["task.loss"]}


def describe_verdict(entry: Entry) -> str:
    """What was found, by the intervals of the score and then of NLL."""
    beside = "plain training of the same time"
    for gain, score in ((entry.gain, entry.score), (entry.nll_gain, entry.nll_score)):
        if gain.low > 0 or gain.high < 0:
            return f"{'beat' if gain.low > 0 else 'lost to'} {beside} in {score}"
    return f"could not be told from {beside}"


def describe_likeness(entry: Entry) -> str:
    return f"with {describe_family(entry)}, which is the most like this run of what was measured"


def describe_family(entry: Entry) -> str:
    """The family of tasks of an entry and the length of its runs."""
    return f"{entry.family}, {entry.epochs} epochs ({entry.steps:,} steps)"
