"""Stopping a run by a signal without losing what it has done."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interrupted(Exception):
    """A signal asked the run to stop; its checkpoint is written."""


@contextmanager
def catch_stop_signals() -> Iterator[list[str]]:
    """A list to which the name of SIGINT or SIGTERM is added when one arrives; a second signal acts as usual."""
    arrived: list[str] = []
    handlers: dict[int, Any] = {}  # the ones before this block

    def record_signal(number: int, frame: Any) -> None:
        arrived.append(signal.Signals(number).name)
        signal.signal(number, handlers[number])

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            handlers[number] = signal.signal(number, record_signal)
    except ValueError:  # Python allows this in the main thread only; in another one, signals act as usual
        pass
    try:
        yield arrived
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
