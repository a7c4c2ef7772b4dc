"""Controls of a comparison: the arms without which "it helps" means nothing."""

from collections.abc import Mapping, Sequence

from ..build.arms import build_arm_recipe, is_possible
from ..config.recipe import Recipe
from ..errors import did_you_mean
from ..method import Method
from ..methods import find_method
from ..report.verdict import SAME_COST
from ..training.cost import costs_more

SMOOTHING, SUPERVISION, CUTMIX, EQUAL_COST = "label_smoothing", "deep_supervision", "cutmix", "equal_cost"
CONTROLS = (EQUAL_COST, SMOOTHING, SUPERVISION, CUTMIX)
ALIKE = 0.10  # by which the lengths of two methods' baselines of equal cost may differ to be one


def parse_controls(text: str) -> list[str]:
    """The controls that a word names: auto is all, none is none.

    >>> parse_controls("auto"), parse_controls("equal_cost")
    (['equal_cost', 'label_smoothing', 'deep_supervision', 'cutmix'], ['equal_cost'])
    """
    if text in ("none", "auto"):
        return [*CONTROLS] if text == "auto" else []
    names = list(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in CONTROLS:
            hint = did_you_mean(name, [*CONTROLS, "auto", "none"])
            raise ValueError(f"controls={name} is no control{hint}; there are auto, none and {', '.join(CONTROLS)}")
    return names


def list_control_arms(base: Recipe, arms: Sequence[str], controls: Sequence[str]) -> list[str]:
    """The arms that controls add, but for baselines of equal cost; those that the task or a method cannot take are not.

    Deep supervision is FRSKD without its distillation, so it controls FRSKD and what builds on it.
    """
    methods = arms[1:]
    added = [SMOOTHING] if SMOOTHING in controls else []
    if SUPERVISION in controls and any(_builds_on_frskd(arm) for arm in methods):
        added.append(SUPERVISION)
    if CUTMIX in controls:
        added += [f"{arm}+mix=cutmix" for arm in methods if build_arm_recipe(base, arm).mix.name == "none"]
    return [arm for arm in added if arm not in arms and is_possible(base, arm)]


def _builds_on_frskd(arm: str) -> bool:
    return issubclass(find_method(arm.split("+")[0]), find_method("frskd"))


def is_as_cheap(method: Method, recipe: Recipe, base: Recipe) -> bool:
    """Whether an arm's steps are the baseline's but for the loss, so that measuring them would find noise alone."""
    only_method = recipe.model_copy(update={"method": base.method, "mix": base.mix, "epochs": base.epochs})
    return not costs_more(method) and only_method == base


def choose_equal_cost(
    recipes: Mapping[str, Recipe], arms: Sequence[str], slowdowns: Mapping[str, float]
) -> dict[str, str]:
    """For each of `arms`, the baseline that trains for as long a time: as many more epochs as the arm's steps cost.

    The first of the recipes is the baseline's. It is that of every arm that costs at most a tenth more itself. Arms
    whose baselines would differ by a tenth or less share one.
    """
    baseline, base = next(iter(recipes.items()))
    chosen: dict[str, str] = {}
    lengths: dict[str, int] = {}
    for arm in arms:
        ratio = slowdowns[arm] * _count(recipes[arm]) / _count(base)
        wanted = round(ratio * _count(base))
        if ratio <= SAME_COST or wanted == _count(base):
            chosen[arm] = baseline
            continue
        name = next((name for name, length in lengths.items() if abs(length - wanted) <= ALIKE * wanted), None)
        if name is None:
            name = _name_longer(baseline, base, wanted)
            lengths[name] = wanted
        chosen[arm] = name
    return {arm: name for arm, name in chosen.items() if arm != name}


def _count(recipe: Recipe) -> int:
    """The length of a recipe in its own unit, epochs or steps."""
    return recipe.epochs or recipe.max_steps or 1


def _name_longer(baseline: str, recipe: Recipe, length: int) -> str:
    """The baseline's arm with another length; where max_steps stops it early, at the same share of the schedule."""
    if recipe.epochs is None:
        return f"{baseline}+max_steps={length}"
    stop = "" if recipe.max_steps is None else f"+max_steps={round(recipe.max_steps * length / recipe.epochs)}"
    return f"{baseline}+epochs={length}{stop}"
