"""Files that are replaced whole or not at all, logs that only grow, and JSON.

A run folder may come from somebody else, so nothing here writes through a link that lies in it.
"""

import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import ValidationError

from ..errors import LONGEST_MESSAGE, LONGEST_VALUE, quote_value

NO_LINKS = getattr(os, "O_NOFOLLOW", 0)  # Windows does not have it


@contextmanager
def replace_file(path: Path, *, durable: bool = True, keep: Path | None = None) -> Iterator[Path]:
    """A path to write to; that file replaces `path` at the end, and the one that was there becomes `keep`, if given.

    A kill or, if `durable`, a power cut leaves either the old file or the new one. After an error the old file stays.
    A kill between the two renames leaves `keep` alone. The file to write to is new and has a random name, and a link at
    `path` is replaced, not followed. An `OSError` names `path`.
    """
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(8)}.tmp{path.suffix}")
    with name_in_errors(path):
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINKS, 0o666))
        try:
            yield temporary
            if durable:
                sync(temporary, os.O_RDWR)
            if keep is not None and path.is_file() and not path.is_symlink():
                os.replace(path, keep)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):  # as where the whole folder is gone
                temporary.unlink(missing_ok=True)
            raise
        if durable and os.name == "posix":  # elsewhere a folder cannot be opened, and the rename is durable by itself
            sync(path.parent, os.O_RDONLY)


@contextmanager
def name_in_errors(path: Path) -> Iterator[None]:
    """Makes an `OSError`, as of a full disk, name this file."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


class CheckedFile:
    """A file for writers that must not see an error: leaving its `with` block raises the first one.

    torch.save may end the process where a write fails.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._error: OSError | None = None

    def write(self, data: bytes | memoryview) -> int:
        if self._error is None:
            try:
                self._file.write(data)
            except OSError as error:
                self._error = error
        return memoryview(data).nbytes

    def flush(self) -> None:
        """Nothing: the file is flushed at the end."""

    def __enter__(self) -> "CheckedFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        try:
            self._file.close()
        except OSError as error:
            self._error = self._error or error
        if self._error is not None and kind is None:
            raise self._error


def remove_leftovers(folder: Path) -> None:
    """Removes what `replace_file` left in a folder when its process was killed; no other process may be writing."""
    for file in folder.glob(".*.tmp*"):
        with suppress(OSError):
            file.unlink()


@contextmanager
def append_to(path: Path) -> Iterator[BinaryIO]:
    """A file that grows at its end and can be read, made if it is missing.

    Raises `ValueError` for a link and for a file that has another name too: writing would change a file elsewhere.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | NO_LINKS | getattr(os, "O_NONBLOCK", 0)  # opening a pipe would wait
    reason = f"{path} is a link or no plain file, and is not written to; put a plain copy in its place"
    if path.is_symlink():
        raise ValueError(reason)
    with name_in_errors(path):
        descriptor = os.open(path, flags, 0o666)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            os.close(descriptor)
            raise ValueError(reason)
        with open(descriptor, "a+b") as file:
            yield file


def make_folders(root: Path, relative: str | Path) -> Path:
    """The folder `relative` to `root`, made if missing; raises `ValueError` for a link on the way below `root`."""
    root.mkdir(parents=True, exist_ok=True)
    folder = root
    for name in Path(relative).parts:
        folder = folder / name
        if folder.is_symlink():
            raise ValueError(f"{folder} is a link, and nothing is written through it; name another folder with --out")
        folder.mkdir(exist_ok=True)
    return folder


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
        values = parse_json(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}, not names and values")
    return values


def parse_json(text: str | bytes) -> Any:
    """What a text says in JSON; raises `ValueError` for whatever is none, nested too deep included."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def describe_problem(error: ValidationError) -> str:
    """What is wrong with the first value that did not fit, as the end of a sentence."""
    problem = error.errors()[0]
    name = ".".join(map(str, problem["loc"]))
    if problem["type"] == "missing":
        return f"it has no {quote_value(name)}"
    message = problem["msg"].removeprefix("Input ")[:LONGEST_MESSAGE]
    subject = f"{name[:LONGEST_VALUE]}={quote_value(problem['input'])}" if name else quote_value(problem["input"])
    return f"{subject} {message}"


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
