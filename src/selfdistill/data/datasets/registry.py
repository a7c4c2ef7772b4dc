"""Opens a source of data, by the form of its name and by the task."""

import os
from collections.abc import Sequence

from ...config.recipe import DataPart
from ...errors import did_you_mean
from ...imports import OBJECT
from ..task_data import TaskData
from .exclusion import leave_out
from .opener import FileOpener
from .parquet import list_parquet_files
from .shards import has_shard_names, list_shards
from .splits import DatasetSplits

BUILT_IN = ("digits", "scenes", "digit_scenes")
PREFIXES = ("hf", "torchvision")
FORMS_BY_SUFFIX = {".parquet": "parquet", ".csv": "table", ".tsv": "table", ".jsonl": "table"}
FORMS = ("folder", "parquet", "shards", "table", OBJECT, *PREFIXES)  # all other forms are names of built-in data sets
TABLES = ("hf", "parquet", "shards", "table")  # forms that have columns, or parts of samples
IN_BLOCKS = ("hf", "parquet", "shards")  # forms that can be read block by block


def open_source(settings: DataPart, source: str, task: TaskData, classes: Sequence[str] | None = None) -> DatasetSplits:
    """Opens the splits of a source, with the labels that the task learns.

    `classes` numbers the labels if neither the source nor `settings` names them. Raises `ValueError` in one sentence
    for a source that does not exist, or that the task cannot learn from.
    """
    stored = leave_out(open_stored(settings, source, task), settings, source)
    opened = task.read_labels(stored, settings, source, classes)
    for name in dict.fromkeys(name for dataset in opened.splits.values() for name in dataset.classes):
        if not name.isascii():
            refuse_bytes(name, source)
    return opened


def open_stored(settings: DataPart, source: str, task: TaskData) -> DatasetSplits:
    """Opens all images of a source, before their labels get a meaning; errors as in `open_source`."""
    opener = FileOpener(settings.opener)
    form, location = _detect_form(source, task) if opener.function is None else _detect_opened_form(source, opener)
    if not form:
        raise ValueError(_say_unknown(source, task))
    if settings.stream and form not in IN_BLOCKS:
        raise ValueError(f"data.stream={settings.stream} has no effect on {source}; it reads .tar and .parquet files")
    for name in ("image_column", "label_column", "separator"):
        value = getattr(settings, name)
        if value is not None and form not in TABLES and name not in task.idle_settings:
            raise ValueError(f"data.{name}={value} has no effect on {source}, which is no table")
    if isinstance(settings.label_column, list) and not task.takes_columns:
        raise ValueError(
            f"data.label_column names {len(settings.label_column)} columns, and task={task.name} learns from one; "
            "task=multilabel takes a column of 0 and 1 for each class"
        )
    if form not in task.sources:
        raise ValueError(f"{source} {task.other_labels}")
    stored = task.sources[form](settings, location)
    for dataset in stored.splits.values():
        dataset.set_limits(settings.max_megapixels, settings.channels or 1)
    if form == location and os.path.exists(source):
        stored = stored._replace(notes=(say_hidden(source, "the built-in data set"), *stored.notes))
    return stored


def refuse_bytes(name: str, source: str) -> None:
    """Raises `ValueError` for the name of a class that no file of a run could hold: bytes that are no UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the name of the class {name!r} of {source} is no text in UTF-8; rename it") from None


def say_hidden(name: str, meaning: str) -> str:
    """The note that a name was not taken for the file or folder here that is called the same."""
    return f"{name} means {meaning}; what lies here under that name is ./{name}"


def exists(source: str) -> bool:
    """Whether there is a file or folder of this name, or a shard that this pattern names."""
    path = os.path.expanduser(source)
    return os.path.exists(path) or any(map(os.path.exists, [*list_shards(path), *list_parquet_files(path)]))


def has_columns(source: str, task: TaskData) -> bool:
    """Whether a source is a table, or samples of named parts."""
    return _detect_form(source, task)[0] in TABLES


def is_path(source: str, task: TaskData) -> bool:
    """Whether a source is named by a path, rather than built in or fetched."""
    prefix, colon, _ = source.partition(":")
    return source not in _list_names(task) and not (colon and prefix in (OBJECT, *PREFIXES))


def _list_names(task: TaskData) -> list[str]:
    """The names of data sets that need neither a path nor a prefix, including data sets of other tasks."""
    return list(dict.fromkeys((*BUILT_IN, *(name for name in task.sources if name not in FORMS))))


def _detect_form(source: str, task: TaskData) -> tuple[str, str]:
    """The form of a source ("" if unknown), and its path or its name without the prefix."""
    path = os.path.abspath(os.path.expanduser(source))
    prefix, colon, name = source.partition(":")
    if source in _list_names(task):
        return source, source
    if colon and prefix in (OBJECT, *PREFIXES):
        return prefix, name
    if not source:
        return "", path
    if list_parquet_files(path):
        return "parquet", path
    if list_shards(path):
        return "shards", path
    if os.path.isdir(path):
        return "folder", path
    suffix = os.path.splitext(path)[1].lower()
    return FORMS_BY_SUFFIX.get(suffix, "") if os.path.exists(path) else "", path


def _detect_opened_form(source: str, opener: FileOpener) -> tuple[str, str]:
    """The form of a source whose files a function of the user's own opens: their names need not be paths."""
    if list_parquet_files(source, opener):
        return "parquet", source
    if has_shard_names(source):
        return "shards", source
    raise ValueError(f"data.opener={opener.function} opens .tar and .parquet files, and {source} names none")


def _say_unknown(source: str, task: TaskData) -> str:
    if source and os.path.exists(os.path.expanduser(source)):
        return f"{source} is a file of an unknown kind; data comes from {task.sources_in_words}"
    prefixes = [f"{prefix}:" for prefix in reversed(PREFIXES)]
    choice = f"data comes from {task.sources_in_words}"
    hint = did_you_mean(source, [*_list_names(task), *prefixes], otherwise=choice, cutoff=0.7)
    return f"there is no file or folder {source!r}{hint}"
