"""Which samples a tar shard holds, and where the bytes of each part lie.

Reading this takes one look at every header of the archive. The result is kept in the cache folder. Nothing is
extracted, and only the bytes of labels are read.
"""

import hashlib
import json
import os
import posixpath
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Int

from ..cache.folder import cache_folder
from .opener import FileOpener
from .tar_parts import Member, WantedParts, choose_parts, is_usable, read_label

FORMAT = 1  # version of the stored index
CHUNK = 2**20  # bytes that are copied at a time
COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")  # gzip, bzip2, xz, zstandard
NO_LABEL = -1


class ShardState(NamedTuple):
    """What tells one content of a shard from another."""

    size: int  # bytes
    stamp: int  # time of its last change in nanoseconds, or a checksum


class ShardIndex(NamedTuple):
    """The samples of one shard in order."""

    path: str
    state: ShardState
    keys: bytes  # each ends in a zero byte
    images: Int[np.ndarray, "n 2"]  # offset and size in bytes
    masks: Int[np.ndarray, "n 2"]  # empty without masks
    codes: Int[np.ndarray, " n"]  # places in `labels`, or NO_LABEL
    labels: list[Any]  # the distinct labels
    broken: dict[int, str]  # by row, what is wrong with a sample, behind its name
    num_other: int  # files that belong to no sample


def read_index(path: str, wanted: WantedParts, opener: FileOpener) -> ShardIndex:
    """The index of a shard, from the cache folder if it was read before.

    A local shard must still have its size and time. A shard of the user's own opener is copied to be read, and removed.
    Raises `ValueError` for a file that is no complete, uncompressed tar archive.
    """
    return _read_local_index(path, wanted) if opener.function is None else _read_opened_index(path, wanted, opener)


def _read_opened_index(path: str, wanted: WantedParts, opener: FileOpener) -> ShardIndex:
    stored = find_stored(path, wanted, opener)
    if stored is not None and (index := _load(stored, path)) is not None:
        return index
    with tempfile.TemporaryFile() as copy:
        with opener.open(path) as stream:
            state = copy_bytes(stream, copy)
        copy.seek(0)
        index = build_index(copy, path, state, wanted)
    _store(stored, index)
    return index


def copy_bytes(stream: BinaryIO, target: BinaryIO) -> ShardState:
    """Copies a file; its size, and a checksum in place of its time."""
    size, checksum = 0, 0
    while content := stream.read(CHUNK):
        target.write(content)
        size, checksum = size + len(content), zlib.crc32(content, checksum)
    target.flush()
    return ShardState(size, checksum)


def _read_local_index(path: str, wanted: WantedParts) -> ShardIndex:
    try:
        status = os.stat(path)
    except OSError as error:
        raise ValueError(f"the shard {path} cannot be read: {error.strerror or error}") from None
    state = ShardState(status.st_size, status.st_mtime_ns)
    stored = find_stored(os.path.abspath(path), wanted, state)
    if stored is not None and (index := _load(stored, path)) is not None:
        return index
    with open(path, "rb") as file:
        index = build_index(file, path, state, wanted)
    _store(stored, index)
    return index


def build_index(file: BinaryIO, path: str, state: ShardState, wanted: WantedParts) -> ShardIndex:
    samples: dict[str, dict[str, Member]] = {}
    broken: dict[str, str] = {}
    for member in list_members(file, path):
        parts = samples.setdefault(member.key, {})
        if member.part in parts:
            broken[member.key] = f"has two parts called {member.part}"
        parts[member.part] = member
    others = {key for key, parts in samples.items() if not any(map(is_usable, parts))}
    rows = {key: parts for key, parts in samples.items() if key not in others}
    images, masks = (
        np.zeros((len(rows), 2), np.int64),
        np.zeros((len(rows) if wanted.holds == "mask" else 0, 2), np.int64),
    )
    codes, labels, reasons = np.full(len(rows), NO_LABEL, np.int32), {}, {}
    for row, (key, parts) in enumerate(rows.items()):
        try:
            if key in broken:
                raise ValueError(broken[key])
            image, label = choose_parts(frozenset(parts), wanted)
            images[row] = parts[image][2:]
            if wanted.holds == "mask":
                masks[row] = parts[label][2:]
            else:
                value = read_label(file, parts[label], wanted)
                codes[row] = labels.setdefault(json.dumps(value), len(labels))
        except ValueError as error:
            reasons[row] = str(error)
    return ShardIndex(
        path,
        state,
        b"".join(key.encode() + b"\0" for key in rows),
        images,
        masks,
        codes,
        [json.loads(label) for label in labels],
        reasons,
        sum(len(samples[key]) for key in others),
    )


def list_members(file: BinaryIO, path: str) -> Iterator[Member]:
    """Yields the regular files of an archive that are not hidden.

    Raises `ValueError` for what is no tar archive, for a compressed one, and for one that is cut short or damaged.
    """
    try:
        with tarfile.open(fileobj=file, mode="r:", errors="replace") as archive:
            while (info := archive.next()) is not None:
                archive.members = []  # it would remember all of them
                name = posixpath.normpath(info.name)
                if not info.isreg() or info.issparse() or posixpath.basename(name).startswith((".", "__MACOSX")):
                    continue
                folder, base = posixpath.split(name)
                stem, _, part = base.partition(".")
                yield Member(posixpath.join(folder, stem), part.lower(), info.offset_data, info.size)
            end = archive.offset
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        raise ValueError(f"the shard {path} {_say_unreadable(file, error)}") from None
    file.seek(end)
    block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise ValueError(f"the shard {path} is cut short: it lacks the mark at the end of an archive; write it again")
    if block.strip(b"\0"):
        raise ValueError(f"the shard {path} is damaged: what stands at byte {end:,} is no header; write it again")


def _say_unreadable(file: BinaryIO, error: Exception) -> str:
    file.seek(0)
    head = file.read(6)
    if not head:
        return "is empty"
    if head.startswith(COMPRESSED):
        return "is compressed, so that no image can be read alone; unpack it to a .tar file"
    if "unexpected end" in str(error) or "truncated" in str(error):
        return "is cut short: it ends within a file; write it again"
    return f"is no tar archive ({error})"


def find_stored(path: str, wanted: WantedParts, of: ShardState | FileOpener) -> Path | None:
    """The file of an index; None where there is no home folder."""
    identity = repr((FORMAT, path, tuple(wanted), tuple(of)))
    digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()
    try:
        return cache_folder() / "shards" / f"{digest}.npz"
    except ValueError:
        return None


def _store(stored: Path | None, index: ShardIndex) -> None:
    """Keeps an index, if that is possible: else the next run reads the shard again."""
    if stored is not None:
        with suppress(OSError):  # a full disk, or a folder that cannot be written
            _write(stored, index)


def _write(stored: Path, index: ShardIndex) -> None:
    described = {name: getattr(index, name) for name in ("state", "labels", "broken", "num_other")}
    stored.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=stored.parent, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(
                file,
                keys=np.frombuffer(index.keys, np.uint8),
                described=np.frombuffer(json.dumps(described).encode(), np.uint8),
                **{name: getattr(index, name) for name in ("images", "masks", "codes")},
            )
        os.replace(temporary, stored)
    except BaseException:
        os.unlink(temporary)
        raise


def _load(stored: Path, path: str) -> ShardIndex | None:
    """A stored index; None if there is none, or a damaged one."""
    try:
        with stored.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            described = json.loads(arrays["described"].tobytes())
            return ShardIndex(
                path,
                ShardState(*described["state"]),
                arrays["keys"].tobytes(),
                arrays["images"],
                arrays["masks"],
                arrays["codes"],
                described["labels"],
                {int(row): reason for row, reason in described["broken"].items()},
                described["num_other"],
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
