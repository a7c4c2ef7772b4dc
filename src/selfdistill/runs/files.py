"""Files that are replaced whole or not at all, and JSON."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """A path to write to; that file replaces `path` at the end.

    A kill or a power cut leaves either the old file or the new one. After an error the old file stays.
    """
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        yield temporary
        sync(temporary, os.O_RDWR)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened, and the rename is durable by itself
        sync(path.parent, os.O_RDONLY)


def sync(path: Path, flags: int) -> None:
    """Waits until a file or a folder is on the disk."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Replaces a text file."""
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Replaces a JSON file; NaN and infinities become null."""
    write_text(path, json.dumps(replace_nan(to_plain(values)), indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds; raises `ValueError` for anything else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}, not names and values")
    return values


def describe_problem(error: ValidationError) -> str:
    """What is wrong with the first value that did not fit, as the end of a sentence."""
    problem = error.errors()[0]
    name = ".".join(map(str, problem["loc"]))
    if problem["type"] == "missing":
        return f"it has no {name!r}"
    return f"{name}={problem['input']!r} {problem['msg'].removeprefix('Input ')}"


def to_plain(value: Any) -> Any:
    """`value` in the types of JSON: tensors of one element become numbers, named tuples become objects."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value.item() if hasattr(value, "item") else value


def replace_nan(values: Any) -> Any:
    """Plain values with None for NaN and infinities, which JSON does not have."""
    return json.loads(json.dumps(values), parse_constant=lambda name: None)


def cut_torn_line(file: BinaryIO) -> None:
    """Removes the part of a last line that a kill left behind."""
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
