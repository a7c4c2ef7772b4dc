"""The shell's completion: recipes, settings and their values. It loads no torch, so that it answers at once."""

import pkgutil
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, Literal, get_args, get_origin

from ..config.names import list_recipes
from ..config.part import Part, find_part_class, list_settings
from ..config.recipe import AUTO, Recipe

OF_COMPARISONS = ("methods", "seeds", "controls", "margin", "budget")
SOURCES = ("cifar:", "efficientdet:", "hf:", "smp:", "timm:", "torchvision:")


def list_completions(kind: str, incomplete: str, before: Sequence[str] = ()) -> list[str]:
    """What a word that begins with `incomplete` may become; `before` are the words that stand before it.

    `kind` is "words" (a recipe and settings), "methods" or "recipes". bash takes the = of a setting for a word, and
    typer leaves it out.
    """
    if kind == "methods":
        return _select(_list_files("methods"), incomplete)
    if kind == "recipes":
        return _select(list_recipes(), incomplete)
    words = [word for word in before if word != "="]
    settings = [*list_settings(Recipe), *OF_COMPARISONS]
    if words and words[-1] in settings:
        return _select(_list_values(words[-1]), incomplete.removeprefix("="))
    name, equals, value = incomplete.partition("=")
    if equals:
        return [f"{name}={choice}" for choice in _select(_list_values(name), value)]
    recipes = [] if words else list_recipes()
    return _select([*recipes, *(f"{setting}=" for setting in settings)], incomplete)


def _select(names: Sequence[str] | dict[str, Any], beginning: str) -> list[str]:
    return sorted(name for name in names if name.startswith(beginning))


def _list_values(setting: str) -> list[str]:
    """The values of a setting, as far as there are few; a part stands for its main field."""
    *parents, last = setting.split(".")
    part: type[Part] | None = Recipe
    for parent in parents:
        part = find_part_class(part, parent)
    if (inner := find_part_class(part, last)) is not None:
        return _list_values(f"{setting}.{inner.main}")
    if setting in VALUES:
        return VALUES[setting]()
    field = None if part is None else part.model_fields.get(last)
    return [] if field is None else _list_literals(field.annotation)


def _list_literals(annotation: Any) -> list[str]:
    if annotation is bool:
        return ["true", "false"]
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    return [value for argument in get_args(annotation) for value in _list_literals(argument)]


def _list_files(folder: str) -> list[str]:
    """The registered names in a folder of the package: those of its files."""
    found = find_spec(f"{__package__.partition('.')[0]}.{folder}")
    assert found is not None
    return [info.name for info in pkgutil.iter_modules(found.submodule_search_locations) if info.name != "base"]


VALUES: dict[str, Callable[[], list[str]]] = {
    "methods": lambda: [AUTO, *_list_files("methods")],
    "method.name": lambda: [AUTO, *_list_files("methods")],
    "task.kind": lambda: _list_files("tasks"),
    "data.source": lambda: ["digits", "scenes"],
    "student.name": lambda: [*SOURCES],
}
