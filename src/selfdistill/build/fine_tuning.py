"""What a run chooses by whether its student starts from trained weights, and by its length, and says."""

import json
from typing import Any, NamedTuple

from torch import nn

from ..config.recipe import Recipe
from ..method import Method
from ..models import describe_weights
from ..runs.state_dicts import find_weights_file
from ..runs.student import read_card
from ..tasks import complete_recipe, starts_trained
from .sources import forget_start


def choose_normalization(recipe: Recipe, channels: int, *, trust: bool = False) -> dict[str, Any]:
    """`mean` and `std` of the data that the student's first weights were trained on; empty where they are not known.

    Empty too where the recipe has its own, as that of a run has. Gray images take the mean over the colors.
    """
    student, start = recipe.student, recipe.student.start
    is_open = recipe.data.mean is None and recipe.data.std is None
    if not is_open or not starts_trained(recipe):
        return {}
    if start is None or find_weights_file(start) is not None:
        public = describe_weights(student.name or "")
        normalization = None if public is None else (public.mean, public.std)
    else:
        data = read_card(start, trust=trust).data
        normalization = None if data.mean is None or data.std is None else (data.mean, data.std)
    if normalization is None:
        return {}
    mean, std = ([round(float(value), 6) for value in values] for values in normalization)
    if channels == 1 and len(mean) == 3:
        mean, std = [round(sum(mean) / 3, 6)], [round(sum(std) / 3, 6)]
    return {"mean": mean, "std": std} if len(mean) == channels else {}


def tune_frozen(given: Recipe, recipe: Recipe, student: nn.Module) -> Recipe:
    """The recipe with the rates of training from random weights, where the method trains nothing of the student."""
    if any(parameter.requires_grad for parameter in student.parameters()):
        return recipe
    return recipe.model_copy(update={"optim": complete_recipe(forget_start(given)).optim})


class MethodSettings(NamedTuple):
    """Hyper-parameters that a recipe leaves open and that are not the usual ones in its run."""

    chosen: dict[str, Any] = {}
    untuned: dict[str, Any] = {}  # what those of them would be that differ around random weights


def choose_method_settings(
    recipe: Recipe, method: type[Method], student: nn.Module, output: str, steps: int
) -> MethodSettings:
    """Those for a schedule of so many steps, around random weights or trained ones."""
    given, defaults = recipe.method.hyperparameters, method.defaults(output)
    usual = tuned = method.short_run_defaults(output, given, steps, student=student)
    if starts_trained(recipe):
        tuned = method.short_run_defaults(output, given, steps, is_tuning=True, student=student)
    both = {name: (tuned.get(name, defaults[name]), usual.get(name, defaults[name])) for name in {**usual, **tuned}}
    return MethodSettings(
        {name: value for name, (value, _) in both.items()},
        {name: other for name, (value, other) in both.items() if value != other},
    )


def note_short_run(settings: MethodSettings, defaults: dict[str, Any], steps: int) -> list[str]:
    """Sentences about the hyper-parameters that are chosen for a schedule of so few `steps`."""
    return [
        f"method.{name}={value}, as a schedule of {steps} step{'s' * (steps != 1)} is short"
        f" (paper: {json.dumps(defaults[name])})"
        for name, value in settings.chosen.items()
        if name not in settings.untuned
    ]


def note_fine_tuning(
    given: Recipe, recipe: Recipe, normalization: dict[str, Any], of_method: MethodSettings
) -> list[str]:
    """A sentence about the settings that are chosen for trained weights, and what they are for random ones."""
    usual = complete_recipe(forget_start(given))
    settings = [
        f"optim.{name}={getattr(recipe.optim, name):g} (not {getattr(usual.optim, name):g})"
        for name in ("lr", "warmup")
        if getattr(given.optim, name) is None and getattr(recipe.optim, name) != getattr(usual.optim, name)
    ]
    settings += [
        f"method.{name}={of_method.chosen[name]} (not {json.dumps(other)})" for name, other in of_method.untuned.items()
    ]
    settings += [f"data.{name}={values} (the weights' own)" for name, values in normalization.items()]
    if not settings:
        return []
    return [f"as the student starts from trained weights: {', '.join(settings)}"]
