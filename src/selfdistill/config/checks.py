"""Settings of a recipe that do not go together.

`build/checks.py` checks what depends on the data, the network or the method.
"""

from collections.abc import Iterator

from ..errors import PLAIN_NUMBER
from .part import Part
from .recipe import AUTO, DataPart, MethodPart, OptimPart, Recipe


def find_conflicts(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Yield the name of each setting that another one leaves without effect, and a sentence about it."""
    optim = recipe.optim
    schedule = f"optim.schedule={optim.schedule}"
    without_effect = [  # (settings, whether they have no effect, with what)
        ("student.pretrained", recipe.student.start is not None, "student.start"),
        ("student.unfreeze_at", recipe.student.freeze is None, "student.freeze=null"),
        ("mix.alpha mix.probability", recipe.mix.name == "none", "mix=none"),
        ("optim.milestones optim.gamma", optim.schedule != "step", schedule),
        ("optim.min_lr", optim.schedule in ("step", "constant"), schedule),
        ("task.gamma", recipe.task.loss != "focal", f"task.loss={recipe.task.loss or 'cross_entropy'}"),
        ("optim.nesterov", optim.name != "sgd" or optim.momentum == 0, "an optimizer but sgd with momentum"),
    ]
    for names, idle, reason in without_effect:
        for name in names.split():
            part, _, field = name.partition(".")
            if idle and _is_set(getattr(recipe, part), field):
                yield name, f"{name}={getattr(getattr(recipe, part), field)} has no effect with {reason}"
    yield from _find_huge_sizes(recipe.data)
    yield from _find_unordered_schedules(optim)
    yield from _find_settings_of_auto(recipe.method)
    if is_share(recipe.data.val):
        yield (
            "data.val",
            f"data.val={recipe.data.val} is a share, and no source or split; did you mean "
            f"data.val_fraction={recipe.data.val}?",
        )


def _find_unordered_schedules(optim: OptimPart) -> Iterator[tuple[str, str]]:
    """Added schedules that no run wrote, as it adds one after the other."""
    begun = 0
    for start, planned, _ in optim.restarts:
        if not begun < start <= planned:
            yield "optim.restarts", f"optim.restarts={optim.restarts} is not of steps that rise; a run writes it"
        begun = start


def _find_settings_of_auto(method: MethodPart) -> Iterator[tuple[str, str]]:
    """Settings beside method=auto, which chooses them too."""
    given = method.model_dump(exclude={"name"}, exclude_none=True) if method.name == AUTO else {}
    for name, value in given.items():
        yield (
            f"method.{name}",
            f"method.{name}={value} has no effect with method=auto, which chooses the settings too; leave it out, or "
            "name a method",
        )


def is_share(text: str | None) -> bool:
    """Whether a name is a number between 0 and 1."""
    return text is not None and PLAIN_NUMBER.fullmatch(text) is not None and 0 < float(text) < 1


def _find_huge_sizes(data: DataPart) -> Iterator[tuple[str, str]]:
    """Sizes that images are resized to, and that would fill the memory."""
    for name in ("image_size", "short_side"):
        sides = getattr(data, name)
        height, width = sides if isinstance(sides, tuple) else (sides or 0, sides or 0)
        if not data.allows_size(height, width):
            yield (
                f"data.{name}",
                f"data.{name}={sides} makes images of {height * width / 1e6:,.0f} million pixels, and "
                f"data.max_megapixels={data.max_megapixels:g} allows no larger ones",
            )


def _is_set(part: Part, field: str) -> bool:
    return getattr(part, field) != type(part).model_fields[field].default
