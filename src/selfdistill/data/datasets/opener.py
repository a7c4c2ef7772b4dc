"""Opens the files of a data set: local ones, and those that a function of the user's own opens."""

import errno
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import BinaryIO, NamedTuple

from ...errors import UserCodeError, one_line
from ...imports import load


class FileOpener(NamedTuple):
    """How a data set opens its files; `function` is the setting `data.opener`."""

    function: str | None = None

    @contextmanager
    def open(self, name: str) -> Iterator[BinaryIO]:
        """Opens a file to read. Raises `ValueError` that names it, also for errors while it is read."""
        try:
            with closing(self._open(name)) as stream:
                yield stream
        except FileNotFoundError as error:
            if self.function is not None:
                raise self._blame(name, error) from error
            raise ValueError(f"{name} does not exist any more; put it back, and --resume goes on") from None
        except ValueError:
            raise
        except Exception as error:  # the user's code raises any
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                raise  # of the folder that is written to
            if self.function is not None:
                raise self._blame(name, error) from error
            raise ValueError(f"{name} cannot be read: {one_line(error)}") from None

    def _open(self, name: str) -> BinaryIO:
        if self.function is None:
            return open(name, "rb")
        stream = load(self.function)(name)
        if not hasattr(stream, "read") or not hasattr(stream, "close"):
            kind = type(stream).__name__
            raise UserCodeError(f"data.opener={self.function} must return a file opened to read bytes, not a {kind}")
        return stream

    def _blame(self, name: str, error: Exception) -> UserCodeError:
        return UserCodeError(f"{name} cannot be read by data.opener={self.function}: {one_line(error)}")


LOCAL = FileOpener()
