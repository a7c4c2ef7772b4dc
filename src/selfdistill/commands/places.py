"""Finds what a run's recipe names by a relative path, from whichever folder a command is called."""

import os

from ..config.recipe import DataPart, Recipe
from ..data.datasets.registry import exists, is_path
from ..data.datasets.splits import parse_split
from ..runs.folder import Run
from ..tasks import find_task
from .arguments import tell


def find_recipe_paths(recipe: Recipe, run: Run) -> Recipe:
    """The recipe of a run, its relative paths as seen from the folder where the run was started; errors as below."""
    start, teacher = (find_path(name, run) for name in (recipe.student.start, recipe.method.teacher))
    return recipe.model_copy(
        update={
            "data": find_data_paths(recipe.data, run, recipe.task.kind, advice="go on from there"),
            "student": recipe.student.model_copy(update={"start": start}),
            "method": recipe.method.model_copy(update={"teacher": teacher}),
        }
    )


def find_data_paths(data: DataPart, run: Run, task: str, *, advice: str) -> DataPart:
    """The data settings of a run, their relative paths as seen from the folder where the run was started.

    Raises `ValueError`, which ends in `advice`, for a source that is neither there nor here.
    """
    names = ["palette", "root"]
    if data.opener is None:  # else names need not be paths
        names += ["source"] if data.source and is_path(data.source, find_task(task)) else []
        names += ["val"] if data.val and not parse_split(data.val) and is_path(data.val, find_task(task)) else []
    data = data.model_copy(update={name: find_path(getattr(data, name), run) for name in names})
    if "source" in names and not exists(data.source):
        where = get_start(run)
        there = f" or in {where}, where the run was started" if where else ""
        raise ValueError(f"there is no file or folder {data.source} in {os.getcwd()}{there}; {advice}")
    return data


def find_path(name: str | None, run: Run) -> str | None:
    """A path as it is, if it exists here; else as seen from the folder where the run was started, if it exists there.

    A folder from somebody else does not decide where to look.
    """
    start = get_start(run)
    if name is None or exists(name) or start is None:
        return name
    path = os.path.normpath(os.path.join(start, name))
    if not exists(path):
        return name
    tell(f"note: {name} is {path}, as seen from where {run.path} was started")
    return path


def get_start(run: Run) -> str | None:
    """The folder where a run of this machine was started."""
    environment = run.environment() if run.is_own else None
    return None if environment is None else environment.folder
