"""From files and words to a recipe.

`read` merges, in this order, the defaults, the files that a recipe builds on, the recipe and `name=value` words.
A plain string is short for a part's main field: `data: /my/images` for `data: {source: /my/images}`. Naming another
method drops the settings of the old one: `method=baseline` makes the baseline of any recipe.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from ..errors import did_you_mean, quote_value
from .checks import find_conflicts
from .files import RecipeFile, load_with_bases
from .names import find_recipe
from .overrides import apply_word, expand, merge
from .part import find_part_class, flatten, list_settings
from .recipe import Recipe

SIMILAR = 0.7  # of the letters of two names; less alike ones mislead


def read(name: str | Path | None = None, words: Iterable[str] = (), values: Mapping[str, Any] | None = None) -> Recipe:
    """Return the recipe of a YAML file, or one that comes with the package, with settings over it.

    The settings are nested plain `values`, as a file has them, and `name=value` words over these.

    Raises `ValueError` in one sentence for an unreadable file, an unknown name (with the nearest legal one), a value
    of the wrong type or settings that do not go together, and names the file in which these stand.
    """
    files = load_with_bases(find_recipe(name)) if name is not None else []
    return _parse(merge_files(files), words, files, values or {})


def change(recipe: Recipe, words: Iterable[str]) -> Recipe:
    """Return the recipe with `name=value` words applied over it; errors as `read`."""
    return _parse(recipe.model_dump(), words)


def parse(values: dict[str, Any]) -> Recipe:
    """Return the recipe that nested plain values describe; errors as `read`."""
    return _parse(values)


def merge_files(files: Iterable[RecipeFile]) -> dict[str, Any]:
    """Return what recipe files say together, each over those before it."""
    values: dict[str, Any] = {}
    for file in files:
        values = merge(values, file.values, Recipe)
    return values


def find_file(
    name: str | Path | None, words: Iterable[str], setting: str, values: Mapping[str, Any] | None = None
) -> Path | None:
    """Return the file in which a setting of a recipe stands; None where a word or `values` give it, or none does."""
    files = load_with_bases(find_recipe(name)) if name is not None else []
    return _find_file(setting, files, _apply_words({**(values or {})}, words))


def _apply_words(values: dict[str, Any], words: Iterable[str]) -> dict[str, Any]:
    """Return nested values with words over them. Words for a whole part come first, wherever they stand."""
    values = copy.deepcopy(values)
    for word in sorted(words, key=lambda word: "." in word.partition("=")[0]):
        apply_word(values, word, Recipe)
    return values


def _parse(
    values: dict[str, Any],
    words: Iterable[str] = (),
    files: Sequence[RecipeFile] = (),
    changes: Mapping[str, Any] = MappingProxyType({}),
) -> Recipe:
    words = list(words)
    refuse_expanded(words)
    values = _apply_words(merge(values, {**changes}, Recipe), words)
    from_words = _apply_words({**changes}, words)
    try:
        recipe = Recipe.model_validate(values)
        problems = dict(find_conflicts(recipe))
    except ValidationError as error:
        problems = _describe(error.errors())
    if problems:
        located = [(_find_file(name, files, from_words), sentence) for name, sentence in problems.items()]
        raise ValueError("; ".join(f"{file}: {sentence}" if file else sentence for file, sentence in located))
    return recipe


def refuse_expanded(words: Sequence[str]) -> None:
    """Raises `ValueError` where a shell has made several words of one pattern of files; the last one would count."""
    for name in ("data", "data.source", "data.val"):
        given = [word for word in words if word.startswith(f"{name}=") and word.lower().endswith((".tar", ".parquet"))]
        if len(given) > 1:
            raise ValueError(
                f"{name}= stands {len(given)} times, from {given[0]} to {given[-1]}, as where a shell has expanded "
                f"braces; put quotes around the word: '{name}=train-{{000..099}}.tar'"
            )


def _describe(errors: list[Any]) -> dict[str, str]:
    """Return one sentence for each wrong setting, whatever the number of types that it might have had."""
    known, by_name = list_settings(Recipe), dict[str, list[Any]]()
    for error in errors:
        path = [str(step) for step in error["loc"]]
        name = ".".join(path)
        if error["type"] != "extra_forbidden":  # of a list or one of several types, the path goes on below the setting
            ends = (".".join(path[:end]) for end in range(len(path), 0, -1))
            name = next((end for end in ends if end in known), name)
        by_name.setdefault(name, []).append(error)
    return {name: _describe_setting(name, errors, known) for name, errors in by_name.items()}


def _describe_setting(name: str, errors: list[Any], known: list[str]) -> str:
    if errors[0]["type"] == "extra_forbidden":
        return describe_unknown_setting(name, known)
    of_value = [error for error in errors if not error["type"].endswith(("_type", "_parsing", "literal_error"))]
    # a value of a type that the setting takes is not blamed for the others
    messages = [error["msg"].removeprefix("Input ").removeprefix("Value error, ") for error in of_value or errors]
    message = " or ".join(dict.fromkeys(messages))
    return f"{name}={quote_value(errors[0]['input'])} {message}" if name else message


def describe_unknown_setting(name: str, known: Iterable[str]) -> str:
    """Return the sentence that says so, with the nearest legal name."""
    known = list(known)
    part, _, field = name.rpartition(".")
    if name in known:  # with its dot, as words have it
        return f"{name!r} is no name in a file; write {part}: {{{field}: ...}}"
    if name == "base":
        return "'base' stands in recipe files only; put the recipe's name before the settings"
    return f"no setting is called {name!r}{did_you_mean_setting(name, known)}"


def did_you_mean_setting(name: str, known: Sequence[str]) -> str:
    """The end of a sentence about an unknown setting: the legal one that is similar, or those of its part.

    Names are compared by what stands behind their last dot: first within the part that the name gives, or, where it
    gives none, with settings of that very name. Last come those that begin with it, as batch_size does with batch.
    """
    part, _, field = name.rpartition(".")
    siblings = [other for other in known if other.rpartition(".")[0] == part]
    same = [other for other in known if other.rpartition(".")[2] == field]
    for names in (siblings, same, known) if part else (same, siblings, known):
        if hint := did_you_mean(name, names, otherwise="", cutoff=SIMILAR, last_after="."):
            return hint
    longer = [other for other in known if other.rpartition(".")[2].startswith(f"{field}_")]
    if hint := did_you_mean(name, longer, otherwise="", last_after="."):
        return hint
    return f"; there are {', '.join(siblings)}" if siblings else "; `selfdistill init` writes a file with all of them"


def _find_file(name: str, files: Sequence[RecipeFile], from_words: Mapping[str, Any]) -> Path | None:
    if _gives(from_words, name):
        return None
    return next((file.path for file in reversed(files) if _gives(file.values, name)), None)


def _gives(values: Mapping[str, Any], name: str) -> bool:
    """Whether nested values give a setting, a part of it, or all of the part that it stands in."""
    expanded = {key: expand(value, find_part_class(Recipe, key)) for key, value in values.items()}
    return any(
        f"{name}.".startswith(f"{set_name}.") or set_name.startswith(f"{name}.") for set_name in flatten(expanded)
    )
