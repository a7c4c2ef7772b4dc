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
    describe_verdict,
    find_alike,
    is_alike,
    list_gains,
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

    Each arm that was measured with the nearest family is looked at in all families that are like the run, at the
    nearest length of each. It counts if the 95 % interval of its gain lies above zero in one of them and neither score
    lies below in any; of several the largest mean over these families is taken, where what was not measured is no gain.

    >>> from selfdistill.build.evidence import Interval
    >>> gains = Interval(1.0, 0.5, 1.5), Interval(0.0, -0.1, 0.1)
    >>> cats = "cats", "classification", "random", 10, 2, 6, 60
    >>> entry = Entry(*cats, "frskd", 2.0, 20, (1, 2, 3), "top-1", *gains, "NLL")
    >>> choose_arm([entry], Situation("classification", "random", 20, 2, 8)).arm
    'frskd'
    >>> choose_arm([entry], Situation("classification", "random", 50, 2, 8)).arm
    'baseline'
    """
    families = find_alike(entries, situation)
    if not families:
        return Choice(PLAIN, f"auto takes plain training ({PLAIN}): nothing like {situation} was measured; {FIND_OUT}")
    near, others = families[0], [entry for family in families[1:] for entry in family]
    found = {entry.arm: [entry, *(other for other in others if other.arm == entry.arm)] for entry in near}
    safe = {arm: of_arm for arm, of_arm in found.items() if not any(map(loses, of_arm))}
    accurate = [of_arm for of_arm in safe.values() if any(entry.gain.low > 0 for entry in of_arm)]
    likelier = [of_arm for of_arm in safe.values() if any(entry.nll_gain.low > 0 for entry in of_arm)]
    if not accurate and not likelier:
        return choose_plain(near, mixed=any(wins(entry) for of_arm in found.values() for entry in of_arm))
    gain = "gain" if accurate else "nll_gain"
    chosen = max(accurate or likelier, key=lambda of_arm: sum(getattr(entry, gain).mean for entry in of_arm))
    nearest = chosen[0]
    price = f"{nearest.price:.2g} times" if nearest.price >= 1.05 else "about"
    sentences = [
        f"{describe_likeness(nearest)}, it {describe_verdict(nearest)}: {describe_gains(nearest)}",
        *(f"with {e.family}, {e.epochs} epochs, it {describe_verdict(e)}: {list_gains(e)}" for e in chosen[1:]),
        f"it takes {price} the time of a plain run of this length",
    ]
    return Choice(nearest.arm, f"auto takes {nearest.arm}: {'; '.join(sentences)}")


def loses(entry: Entry) -> bool:
    """Whether plain training of the same time is better in either score."""
    return entry.gain.high < 0 or entry.nll_gain.high < 0


def wins(entry: Entry) -> bool:
    """Whether it is better in either score."""
    return entry.gain.low > 0 or entry.nll_gain.low > 0


def choose_plain(near: Sequence[Entry], mixed: bool) -> Choice:
    """Plain training, beside the best that was measured with the nearest family; `mixed`: something won somewhere."""
    best = max(near, key=lambda entry: entry.gain.mean)
    beat = "no method beat plain training of the same time" + " without losing to it elsewhere" * mixed
    found = f"the best of {len(near)} tried was {best.arm}: {describe_gains(best)}"
    why = f"{describe_likeness(best)}, {beat}; {found}"
    return Choice(PLAIN, f"auto takes plain training ({PLAIN}): {why}; {FIND_OUT}")
