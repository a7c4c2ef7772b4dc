"""What a source holds, by the form of its name and by the task that is to learn from it."""

import os
from collections.abc import Sequence

from ...config.recipe import DataPart
from ...errors import did_you_mean
from ..task_data import TaskData
from .parquet import has_parquet
from .splits import DatasetSplits

BUILT_IN = ("digits", "scenes")
PREFIXES = ("hf", "torchvision")
FORMS_BY_SUFFIX = {".parquet": "parquet", ".csv": "table", ".jsonl": "table"}
FORMS = ("folder", "parquet", "table", *PREFIXES)  # all that are no data set by name
TABLES = ("hf", "parquet", "table")  # forms that have columns


def open_source(settings: DataPart, source: str, task: TaskData, classes: Sequence[str] | None = None) -> DatasetSplits:
    """What a source holds for a task: images by split, with the labels that the task learns.

    `classes` number the labels that neither the source nor `settings` names. Raises `ValueError` in one sentence for a
    source that is not there, or that holds nothing that the task can learn from.
    """
    form, where = _form_of(source, task)
    if not form:
        raise ValueError(_say_unknown(source, task))
    for name in ("image_column", "label_column"):
        value = getattr(settings, name)
        if value is not None and form not in TABLES:
            raise ValueError(f"data.{name}={value} has no effect on {source}, which is no table")
    if form not in task.sources:
        raise ValueError(f"{source} {task.other_labels}")
    return task.read_labels(task.sources[form](settings, where), settings, source, classes)


def _data_sets(task: TaskData) -> list[str]:
    """The names of data sets that need neither a path nor a prefix, those of other tasks included."""
    return list(dict.fromkeys((*BUILT_IN, *(name for name in task.sources if name not in FORMS))))


def _form_of(source: str, task: TaskData) -> tuple[str, str]:
    """Of what form a source is, "" where of none, and its name in that form or its path."""
    path = os.path.abspath(os.path.expanduser(source))
    prefix, colon, name = source.partition(":")
    if source in _data_sets(task):
        return source, source
    if colon and prefix in PREFIXES:
        return prefix, name
    if not source:
        return "", path
    if has_parquet(path):
        return "parquet", path
    if os.path.isdir(path):
        return "folder", path
    suffix = os.path.splitext(path)[1].lower()
    return FORMS_BY_SUFFIX.get(suffix, "") if os.path.exists(path) else "", path


def _say_unknown(source: str, task: TaskData) -> str:
    if source and os.path.exists(os.path.expanduser(source)):
        return f"{source} is a file of an unknown kind; data comes from {task.sources_in_words}"
    prefixes = [f"{prefix}:" for prefix in reversed(PREFIXES)]
    choice = f"data comes from {task.sources_in_words}"
    hint = did_you_mean(source, [*_data_sets(task), *prefixes], otherwise=choice, cutoff=0.7)
    return f"there is no file or folder {source!r}{hint}"
