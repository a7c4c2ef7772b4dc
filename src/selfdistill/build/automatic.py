"""method=auto: the method and its settings that did best in runs like this one, or plain training."""

from collections.abc import Sequence
from typing import NamedTuple

from ..config.recipe import Recipe
from ..data import OpenedData
from .arms import build_arm_recipe, is_possible
from .evidence import (
    FIND_OUT,
    PLAIN,
    Entry,
    Situation,
    describe_family,
    describe_gains,
    describe_likeness,
    describe_situation,
    describe_verdict,
    find_alike,
    is_alike,
    list_gains,
    note_other_settings,
    read_evidence,
)


class Choice(NamedTuple):
    """What auto stands for, and a sentence that says why and how sure that is."""

    arm: str
    note: str


def choose_method(recipe: Recipe, opened: OpenedData) -> Choice:
    """What auto stands for in a complete recipe, whatever its method.

    Whether the student goes with it is known only when the method is made, see `build_automatic`.
    """
    situation = describe_situation(recipe, opened)
    alike = [entry for entry in read_evidence() if is_alike(entry, situation)]
    fitting = [entry for entry in alike if is_open(recipe, entry.arm)]
    if alike and not fitting:
        why = f"no method that was measured with {alike[0].family} goes with the other settings of this recipe"
        return Choice(PLAIN, f"auto takes plain training ({PLAIN}): {why}; {FIND_OUT}")
    choice = choose_arm(fitting, situation)
    if not fitting:
        return choice
    return choice._replace(note="; ".join([choice.note, *note_other_settings(recipe, choice.arm)]))


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
    >>> choose_arm([entry], Situation("classification", "random", 20, 2, 8, 80)).arm
    'frskd'
    >>> choose_arm([entry], Situation("classification", "random", 50, 2, 8, 80)).arm
    'baseline'
    """
    families = find_alike(entries, situation)
    if not families:
        why = f"nothing like this run was measured ({situation})"
        return Choice(PLAIN, f"auto takes plain training ({PLAIN}): {why}; {FIND_OUT}")
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
    elsewhere = [
        f"with {describe_family(entry)}, it {describe_verdict(entry)}: {list_gains(entry)} ({len(entry.seeds)} seeds)"
        for entry in chosen[1:]
    ]
    sentences = [
        f"{describe_likeness(nearest)}, it {describe_verdict(nearest)}: {describe_gains(nearest)}",
        *elsewhere,
        f"a step took {price} the time of a plain one there",
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


def choose_plain_instead(choice: Choice, error: ValueError) -> Choice:
    """Plain training in place of what was chosen and cannot be trained."""
    why = f"{choice.arm}, which did best in runs like this one, cannot be trained here: {error}"
    return Choice(PLAIN, f"auto takes plain training ({PLAIN}): {why}")
