"""Settings of a recipe that do not go together.

`build/checks.py` checks what depends on the data, the network or the method.
"""

from collections.abc import Iterator

from .part import Part
from .recipe import Recipe


def find_conflicts(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield the name of each setting that another one leaves without effect, and a sentence about it."""
    optim = recipe.optim
    schedule = f"optim.schedule={optim.schedule}"
    without_effect = [  # (settings, whether they have no effect, with what)
        ("student.pretrained", recipe.student.start is not None, "student.start"),
        ("mix.alpha mix.probability", recipe.mix.name == "none", "mix=none"),
        ("optim.milestones optim.gamma", optim.schedule != "step", schedule),
        ("optim.min_lr", optim.schedule in ("step", "constant"), schedule),
        ("optim.nesterov", optim.name != "sgd" or optim.momentum == 0, "an optimizer but sgd with momentum"),
    ]
    for names, idle, reason in without_effect:
        for name in names.split():
            part, _, field = name.partition(".")
            if idle and _is_set(getattr(recipe, part), field):
                yield name, f"{name}={getattr(getattr(recipe, part), field)} has no effect with {reason}"


def _is_set(part: Part, field: str) -> bool:
    return getattr(part, field) != type(part).model_fields[field].default
