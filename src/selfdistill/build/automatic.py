"""method=auto: the method and its settings that did best in runs like this one, or plain training.

evidence.json has what was measured, always beside plain training of the same time. `benchmarks/accuracy/when.py`
writes it from the results.
"""

import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..config.recipe import AUTO, MethodPart, Recipe
from ..data import BatchSampler, OpenedData
from ..tasks import find_task, starts_trained
from ..training.optim import count_steps
from .arms import build_arm_recipe, is_possible

EVIDENCE = Path(__file__).with_name("evidence.json")
PLAIN = "baseline"
IMAGES_WITHIN, EPOCHS_WITHIN = 4.0, 2.0  # factors by which a run that is alike may differ
BEYOND = 1.05  # times as long as the longest plain run an arm may have taken, to count as compared in equal time
FIND_OUT = "`selfdistill compare` with these settings and controls=auto, without auto, finds out for your data"


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
    epochs: float

    def __str__(self) -> str:
        images = f"{self.images:,} image{'s' * (self.images != 1)}"
        return f"{self.task} of {images} from {self.start} weights, {self.epochs:.3g} epoch{'s' * (self.epochs != 1)}"


class Choice(NamedTuple):
    """What auto stands for, and a sentence that says why and how sure that is."""

    arm: str
    note: str


def settle_method(recipe: Recipe, opened: OpenedData) -> tuple[Recipe, list[str]]:
    """The recipe with the chosen method in place of auto, and a note on it; any other recipe stays as it is."""
    if recipe.method.name != AUTO:
        return recipe, []
    plain = recipe.model_copy(update={"method": MethodPart(name=PLAIN)})
    choice = choose_method(plain, opened)
    return build_arm_recipe(plain, choice.arm), [choice.note]


def choose_method(recipe: Recipe, opened: OpenedData) -> Choice:
    """What auto stands for in a complete recipe, whatever its method."""
    situation = describe_situation(recipe, opened)
    alike = [entry for entry in read_evidence() if is_alike(entry, situation)]
    fitting = [entry for entry in alike if is_open(recipe, entry.arm)]
    if alike and not fitting:
        why = f"no method that was measured with {alike[0].family} goes with the other settings of this recipe"
        return Choice(PLAIN, f"auto takes plain training ({PLAIN}): {why}; {FIND_OUT}")
    return choose_arm(fitting, situation)


def describe_situation(recipe: Recipe, opened: OpenedData) -> Situation:
    images = len(opened.open_splits(recipe.data, find_task(recipe.task.kind)).train)
    plan = BatchSampler(images, recipe.batch_size, seed=recipe.seed, drop_last=recipe.data.drop_last)
    epochs = count_steps(recipe, plan.steps_per_epoch)[0] / plan.steps_per_epoch
    start = "partly frozen" if recipe.student.freeze else "trained" if starts_trained(recipe) else "random"
    return Situation(recipe.task.kind, start, images, epochs)


@functools.cache
def read_evidence() -> tuple[Entry, ...]:
    """What was measured."""
    entries = json.loads(EVIDENCE.read_text(encoding="utf-8"))
    gains = [{name: entry[name] and Interval(*entry[name]) for name in ("gain", "nll_gain")} for entry in entries]
    return tuple(Entry(**{**entry, **gain}) for entry, gain in zip(entries, gains, strict=True))


def is_open(recipe: Recipe, arm: str) -> bool:
    """Whether the arm fits the task and changes nothing, beside the method, that the recipe has set."""
    if not is_possible(recipe, arm):
        return False
    before, after, usual = recipe.flatten(), build_arm_recipe(recipe, arm).flatten(), Recipe().flatten()
    changed = [name for name, value in after.items() if not name.startswith("method.") and before.get(name) != value]
    return all(before.get(name) == usual.get(name) for name in changed)


def is_alike(entry: Entry, situation: Situation) -> bool:
    """Whether what was measured says something about a run: same task and start, of about the same size and length."""
    if (entry.task, entry.start) != (situation.task, situation.start) or not entry.is_measured:
        return False
    images, epochs = measure_distance(entry, situation)
    return images <= 1 and epochs <= 1


def measure_distance(entry: Entry, situation: Situation) -> tuple[float, float]:
    """How far images and epochs are apart, by their logarithms; 1 is as far as may be."""
    images = abs(math.log(entry.images / situation.images)) / math.log(IMAGES_WITHIN)
    return images, abs(math.log(entry.epochs / situation.epochs)) / math.log(EPOCHS_WITHIN)


def choose_arm(entries: Sequence[Entry], situation: Situation) -> Choice:
    """The arm that gained most in accuracy at equal time, else the one that did in NLL, else plain training.

    Of the family and length that are nearest to the run, an arm counts if the 95 % interval of its gain lies above
    zero and that of the other score does not lie below.

    >>> gains = Interval(1.0, 0.5, 1.5), Interval(0.0, -0.1, 0.1)
    >>> entry = Entry("cats", "classification", "random", 10, 2, 6, 60, "frskd", 2.0, 20, (1, 2, 3), "top-1", *gains)
    >>> choose_arm([entry], Situation("classification", "random", 20, 8)).arm
    'frskd'
    >>> choose_arm([entry], Situation("classification", "random", 50, 8)).arm
    'baseline'
    """
    near = find_nearest(entries, situation)
    if not near:
        return Choice(PLAIN, f"auto takes plain training ({PLAIN}): nothing like {situation} was measured; {FIND_OUT}")
    accurate = [entry for entry in near if entry.gain.low > 0 and entry.nll_gain.high >= 0]
    likelier = [entry for entry in near if entry.nll_gain.low > 0 and entry.gain.high >= 0]
    where = f"with {near[0].family}, {near[0].epochs} epochs, which is the most like this run of what was measured"
    if not accurate and not likelier:
        best = max(near, key=lambda entry: entry.gain.mean)
        beat = "no method beat plain training of the same time"
        found = f"the best of {len(near)} tried was {best.arm}: {describe_gains(best)}"
        return Choice(PLAIN, f"auto takes plain training ({PLAIN}): {where}, {beat}; {found}; {FIND_OUT}")
    chosen = max(accurate or likelier, key=lambda entry: (entry.gain if accurate else entry.nll_gain).mean)
    beat = f"beat plain training of the same time in {chosen.score if accurate else 'NLL'}"
    price = f"{chosen.price:.2g} times" if chosen.price >= 1.05 else "about"
    price = f"it takes {price} the time of a plain run of this length"
    return Choice(chosen.arm, f"auto takes {chosen.arm}: {where}, it {beat}: {describe_gains(chosen)}; {price}")


def find_nearest(entries: Sequence[Entry], situation: Situation) -> list[Entry]:
    """What was measured with the family and the length that are nearest to a run; empty where none is alike."""
    alike = [entry for entry in entries if is_alike(entry, situation)]
    if not alike:
        return []
    nearest = min(alike, key=lambda entry: sum(measure_distance(entry, situation)))
    return [entry for entry in alike if (entry.family, entry.epochs) == (nearest.family, nearest.epochs)]


def describe_gains(entry: Entry) -> str:
    """Both gains, and how sure they are."""
    (gain, low, high), (nll, nll_low, nll_high) = entry.gain, entry.nll_gain
    return (
        f"{gain:+.1f} points of {entry.score} [{low:.1f}, {high:.1f}] and {nll:+.3f} nats of NLL "
        f"[{nll_low:.3f}, {nll_high:.3f}] (+ is better; 95 % intervals over {len(entry.seeds)} seeds of "
        "one network)"
    )
