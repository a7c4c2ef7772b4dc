"""One process at a time writes a run folder."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import escape_controls
from .files import NO_LINKS

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # file systems that have none
_held: set[int] = set()  # descriptors of the locks of this process


class FolderTaken(ValueError):
    """Another process, or another run, has the folder."""


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keeps other processes from writing a run folder; raises `FolderTaken` that names the one that does so now.

    The system frees a lock when its process ends, however it ends, so a lock file that is left behind locks nothing.
    """
    if fcntl is None:
        yield
        return
    descriptor = _take(folder)
    _held.add(descriptor)
    try:
        yield
    finally:
        _held.discard(descriptor)
        (folder / NAME).unlink(missing_ok=True)  # while it is locked: nobody else can hold a lock on this file
        os.close(descriptor)


def _take(folder: Path) -> int:
    """The descriptor of the lock file, locked."""
    path = folder / NAME
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | NO_LINKS, 0o666)
        if os.fstat(descriptor).st_nlink > 1:
            os.close(descriptor)
            raise FolderTaken(f"{path} is a link, and is not written to; remove it")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in WITHOUT_LOCKS:
                return descriptor
            holder = os.read(descriptor, 1000).decode(errors="replace").strip()
            os.close(descriptor)
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            raise FolderTaken(
                f"{folder} is being written by {escape_controls(holder)[:100] or 'another process'}; "
                "wait until that ends, stop it, or choose another out="
            ) from None
        if _is_file(descriptor, path):
            os.truncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            return descriptor
        os.close(descriptor)  # its holder removed it in between; there may be a new one


def _is_file(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one that now has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _close_in_child() -> None:
    """A forked process, such as one that loads images, must not keep a lock beyond the end of its parent."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
