"""Recipes as a user names them: reading one, a table of those in the package, and one written out whole."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config.files import dump_values, load_with_bases
from ..config.header import describe, read_header
from ..config.names import find_shipped, list_recipes
from ..config.read import find_file, merge_files, read
from ..config.recipe import AUTO, Recipe
from ..errors import did_you_mean
from ..methods import find_method
from ..tasks import complete_recipe, find_task
from .arguments import split_words
from .console import console

UNBROKEN = {"break_long_words": False, "break_on_hyphens": False}


def read_recipe(name: str | Path | None, words: Sequence[str], values: Mapping[str, Any] | None = None) -> Recipe:
    """Return what `config.read` reads, after a look at the method's own settings.

    Raises `ValueError` as that does: it names the file in which an unknown task or method or a wrong hyper-parameter
    stands.
    """
    recipe, setting = read(name, words, values), "task.kind"
    try:
        find_task(recipe.task.kind)
        setting = "method.name"
        if recipe.method.name == AUTO:
            return recipe
        method = find_method(recipe.method.name)
        for hyperparameter, value in recipe.method.hyperparameters.items():
            setting = f"method.{hyperparameter}"
            method.validate({hyperparameter: value})
    except ValueError as error:
        file = find_file(name, words, setting, values)
        raise ValueError(f"{file}: {error}" if file else str(error)) from None
    return recipe


def read_words(words: Sequence[str]) -> Recipe:
    """Return the recipe of a command line: a recipe, if the first word is one, and settings over it."""
    return read_recipe(*split_words(words))


def print_recipes(name: str | None) -> None:
    """Print the recipe of this name whole, or a table of those that have it in their facts; of all without."""
    if name is not None and (path := find_shipped(name)):
        print(write_whole(path), end="")
        return
    console().print(build_recipes_table(name))


def build_recipes_table(words: str | None = None) -> Any:
    """Return a table of the recipes whose name, data, student or method contains `words`; of all without.

    Raises `ValueError`, with the nearest word, if there is none.
    """
    from rich.table import Column, Table

    name_column, *columns = (Column(name, overflow="fold") for name in ("recipe", "data", "student", "method"))
    name_column.no_wrap = True
    table, known = Table(name_column, *columns, "what it trains", title="selfdistill recipes"), set[str]()
    for name, path in list_recipes().items():
        recipe = complete_recipe(read(path))
        facts = [name, recipe.data.source, recipe.student.name, recipe.method.name]
        known.update(facts)
        if words is None or any(words.lower() in fact.lower() for fact in facts):
            table.add_row(*facts, describe(path))
    if words is not None and not table.row_count:
        raise ValueError(
            f"no recipe has {words!r} in its name, data, student or method{did_you_mean(words, sorted(known))}"
        )
    return table


def write_whole(path: Path) -> str:
    """Return a recipe as one file that needs no base: what it says of itself, and every value that it sets."""
    read(path)  # refuses what is wrong with it
    values = merge_files(load_with_bases(path))
    ordered = {name: values[name] for name in Recipe.model_fields if name in values}
    comment = [f"{label}: {text}" if label else text for label, text in read_header(path).items()]
    lines = [line for text in comment for line in textwrap.wrap(text, 98, subsequent_indent="  ", **UNBROKEN)]
    return "\n".join([*(f"# {line}" for line in lines), "", dump_values(ordered)])
