"""Several processes of one command, which share its work."""

import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any


def run_together(command: Sequence[str], processes: int, seconds: float, **options: Any) -> list[int]:
    """Runs so many processes of a command, and gives their exit codes; `options` are those of `subprocess.Popen`.

    Those that still work after the given seconds are told to stop (SIGTERM), and then write their checkpoints.
    """
    end = time.monotonic() + seconds
    started = [subprocess.Popen(command, **options) for _ in range(processes)]
    for process in started:
        try:
            process.wait(timeout=max(1.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
    return [process.wait() for process in started]
