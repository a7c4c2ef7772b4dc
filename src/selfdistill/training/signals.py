"""Stopping a run by a signal without losing what it has done."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Interrupted(Exception):
    """A signal asked the run to stop; its checkpoint is written."""


@contextmanager
def stop_signals() -> Iterator[list[str]]:
    """A list that receives the name of SIGINT or SIGTERM when one comes; a second one acts as usual."""
    came: list[str] = []
    old: dict[int, Any] = {}

    def note(number: int, frame: Any) -> None:
        came.append(signal.Signals(number).name)
        signal.signal(number, old[number])

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            old[number] = signal.signal(number, note)
    except ValueError:  # not the main thread: whoever runs us has the signals
        pass
    try:
        yield came
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
