"""method=auto: the method and its settings that did best in runs like this one, or plain training."""

from collections.abc import Sequence
from typing import NamedTuple

from ..config.recipe import AUTO, MethodPart, Recipe
from ..data import OpenedData
from .arms import build_arm_recipe, is_possible
from .evidence import (
    PLAIN,
    Entry,
    Situation,
    describe_gains,
    describe_likeness,
    describe_situation,
    find_nearest,
    is_alike,
    read_evidence,
)

FIND_OUT = "`selfdistill compare` with these settings and controls=auto, without auto, finds out for your data"


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


def is_open(recipe: Recipe, arm: str) -> bool:
    """Whether the arm fits the task and changes nothing, beside the method, that the recipe has set."""
    if not is_possible(recipe, arm):
        return False
    before, after, usual = recipe.flatten(), build_arm_recipe(recipe, arm).flatten(), Recipe().flatten()
    changed = [name for name, value in after.items() if not name.startswith("method.") and before.get(name) != value]
    return all(before.get(name) == usual.get(name) for name in changed)


def choose_arm(entries: Sequence[Entry], situation: Situation) -> Choice:
    """The arm that gained most in accuracy at equal time, else the one that did in NLL, else plain training.

    Of the family and length that are nearest to the run, an arm counts if the 95 % interval of its gain lies above
    zero and that of the other score does not lie below.

    >>> from selfdistill.build.evidence import Interval
    >>> gains = Interval(1.0, 0.5, 1.5), Interval(0.0, -0.1, 0.1)
    >>> cats = "cats", "classification", "random", 10, 2, 6, 60
    >>> entry = Entry(*cats, "frskd", 2.0, 20, (1, 2, 3), "top-1", *gains, "NLL")
    >>> choose_arm([entry], Situation("classification", "random", 20, 2, 8)).arm
    'frskd'
    >>> choose_arm([entry], Situation("classification", "random", 50, 2, 8)).arm
    'baseline'
    """
    near = find_nearest(entries, situation)
    if not near:
        return Choice(PLAIN, f"auto takes plain training ({PLAIN}): nothing like {situation} was measured; {FIND_OUT}")
    accurate = [entry for entry in near if entry.gain.low > 0 and entry.nll_gain.high >= 0]
    likelier = [entry for entry in near if entry.nll_gain.low > 0 and entry.gain.high >= 0]
    where = describe_likeness(near[0])
    if not accurate and not likelier:
        best = max(near, key=lambda entry: entry.gain.mean)
        beat = "no method beat plain training of the same time"
        found = f"the best of {len(near)} tried was {best.arm}: {describe_gains(best)}"
        return Choice(PLAIN, f"auto takes plain training ({PLAIN}): {where}, {beat}; {found}; {FIND_OUT}")
    chosen = max(accurate or likelier, key=lambda entry: (entry.gain if accurate else entry.nll_gain).mean)
    beat = f"beat plain training of the same time in {chosen.score if accurate else chosen.nll_score}"
    price = f"{chosen.price:.2g} times" if chosen.price >= 1.05 else "about"
    price = f"it takes {price} the time of a plain run of this length"
    return Choice(chosen.arm, f"auto takes {chosen.arm}: {where}, it {beat}: {describe_gains(chosen)}; {price}")
