"""What a source holds, by the form of its name and by what is to be learned."""

import difflib
import os
from collections.abc import Callable, Sequence
from typing import Any

from ...config.recipe import DataPart
from .cityscapes import open_cityscapes
from .digits import open_digits
from .image_folder import open_folder
from .label_files import find_label_map
from .mask_classes import read_masks
from .mask_folder import is_mask_folder, open_mask_folder
from .parquet import Wanted, has_parquet, open_hub, open_parquet
from .scenes import open_scenes
from .splits import DatasetSplits
from .table import open_mask_table, open_table
from .torchvision import open_torchvision
from .voc import open_voc

KINDS = {
    "classification": "digits, a folder of class folders, a .csv, .jsonl or .parquet file, hf:NAME or torchvision:NAME",
    "segmentation": "scenes, a folder of images and masks, a .csv, .jsonl or .parquet file, or hf:NAME",
}
BUILT_IN = ("digits", "scenes")
ENDINGS = {".parquet": "parquet", ".csv": "table", ".jsonl": "table"}
TABLES = ("hf", "parquet", "table")  # forms that have columns


def open_source(
    part: DataPart, source: str, kind: str = "classification", classes: Sequence[str] | None = None
) -> DatasetSplits:
    """What a source holds: labelled images, or images with masks for `kind` "segmentation".

    `classes` number the values of masks that neither the source nor `part` names.
    """
    path = os.path.abspath(os.path.expanduser(source))
    form, where = _form(source, path)
    if not form:
        raise ValueError(_unknown(source, kind))
    for setting in ("image_column", "label_column"):
        value = getattr(part, setting)
        if value is not None and form not in TABLES:
            raise ValueError(f"data.{setting}={value} has no effect on {source}, which is no table")
    if form not in OPENERS[kind]:
        raise ValueError(f"{source} {REFUSALS[kind]}")
    found = OPENERS[kind][form](part, where)
    return found if kind == "classification" else read_masks(found, part, source, classes)


def _form(source: str, path: str) -> tuple[str, str]:
    """Of what form a source is, "" where of none, and its name in that form or its path."""
    prefix, colon, name = source.partition(":")
    if source in BUILT_IN:
        return source, source
    if colon and prefix in ("hf", "torchvision"):
        return prefix, name
    if not source:
        return "", path
    if has_parquet(path):
        return "parquet", path
    ending = ENDINGS.get(os.path.splitext(path)[1].lower(), "")
    return "folder" if os.path.isdir(path) else ending if os.path.exists(path) else "", path


def _unknown(source: str, kind: str) -> str:
    if source and os.path.exists(os.path.expanduser(source)):
        return f"{source} is a file of an unknown kind; data comes from {KINDS[kind]}"
    near = difflib.get_close_matches(source, [*BUILT_IN, "torchvision:", "hf:"], n=1, cutoff=0.7)
    hint = f"did you mean {near[0]}?" if near else f"data comes from {KINDS[kind]}"
    return f"there is no file or folder {source!r}; {hint}"


def _columns(part: DataPart) -> dict[str, Any]:
    return {"image_column": part.image_column, "label_column": part.label_column}


def _class_folders(part: DataPart, folder: str) -> DatasetSplits:
    if is_mask_folder(folder):
        raise ValueError(f"{folder} holds images with masks, not class folders; task=segmentation learns from masks")
    return open_folder(folder)


def _mask_folders(part: DataPart, folder: str) -> DatasetSplits:
    """A layout of a published set, where the folder is one, else folders of images and masks."""
    return open_voc(folder) or open_cityscapes(folder) or open_mask_folder(folder)


def _named_beside(found: DatasetSplits, path: str) -> DatasetSplits:
    """With the names in the files of a folder, or beside a file; a name of the Hub is neither."""
    path = os.path.expanduser(path)
    return found._replace(label_map=find_label_map(os.path.dirname(path) if os.path.isfile(path) else path))


Openers = dict[str, Callable[[DataPart, str], DatasetSplits]]
LABELLED: Openers = {
    "digits": lambda part, where: open_digits(),
    "torchvision": lambda part, where: open_torchvision(where, part.root, download=part.download),
    "hf": lambda part, where: open_hub(where, Wanted("labels", **_columns(part)), download=part.download),
    "parquet": lambda part, where: open_parquet(where, Wanted("labels", **_columns(part))),
    "folder": _class_folders,
    "table": lambda part, where: open_table(where, **_columns(part)),
}
MASKED: Openers = {
    "scenes": lambda part, where: open_scenes(),
    "hf": lambda part, where: _named_beside(
        open_hub(where, Wanted("masks", **_columns(part)), download=part.download), where
    ),
    "parquet": lambda part, where: _named_beside(open_parquet(where, Wanted("masks", **_columns(part))), where),
    "folder": _mask_folders,
    "table": lambda part, where: _named_beside(open_mask_table(where, **_columns(part)), where),
}
OPENERS = {"classification": LABELLED, "segmentation": MASKED}
REFUSALS = {
    "classification": "has a label for every pixel, not for every image; set task=segmentation to learn it",
    "segmentation": "has a label for every image, not for every pixel; set data=scenes or a folder of images and masks",
}
