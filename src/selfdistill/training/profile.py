"""What training costs: parameters, peak memory, and seconds per step and of compiling."""

import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..method import Method
from .memory import return_freed_memory


class Pace:
    """Seconds per step, told line by line of the log, without the steps that compile or are a process's first."""

    def __init__(self) -> None:
        self.window: list[float] = []  # seconds of the steps since the last line
        self.slow: list[float] = []  # those among them that do not count
        self.compiling: list[float] = []  # seconds of all steps that compiled
        self.lines: list[float] = []  # seconds per step of each line so far
        self.first = True

    def add(self, seconds: float, *, compiles: bool) -> None:
        """Counts one step in."""
        self.window.append(seconds)
        if compiles:
            self.compiling.append(seconds)
        if compiles or self.first:
            self.slow.append(seconds)
        self.first = False

    def flush(self) -> float:
        """The mean since the last line, of the slow steps where there are no others; then starts over."""
        counted = len(self.window) - len(self.slow)
        seconds = sum(self.window) - sum(self.slow) if counted else sum(self.window)
        self.lines.append(seconds / (counted or len(self.window)))
        self.window, self.slow = [], []
        return self.lines[-1]

    def state(self) -> dict[str, list[float]]:
        return {"window": self.window, "slow": self.slow, "compiling": self.compiling, "paces": self.lines}

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state`; those of older checkpoints say nothing of slow steps."""
        self.window, self.lines = list(state["window"]), list(state["paces"])
        self.slow, self.compiling = list(state.get("slow", [])), list(state.get("compiling", []))

    @property
    def usual(self) -> float:
        """The median over the lines; nan before the first."""
        return statistics.median(self.lines) if self.lines else math.nan

    @property
    def compile_seconds(self) -> float:
        """By how much longer the steps that compiled took than usual ones."""
        return sum((max(seconds - self.usual, 0.0) for seconds in self.compiling), start=0.0)


def parameters(method: Method) -> dict[str, int]:
    """How many values the student ships and how many exist only for training, a frozen teacher's aside."""
    every, student = count(method), count(method.student)
    teacher = 0 if method.teacher is None else count(method.teacher)
    return {"student": student, "training_only": every - student - teacher}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def reset_peak_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    return_freed_memory()  # else an earlier run of this process would be measured
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the resident set's high-water mark


def peak_memory_mib(device: torch.device) -> float | None:
    """Since the last reset: the GPU's allocations, or the resident set of this process where the system tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = [line.split()[1] for line in lines if line.startswith("VmHWM")]
    return int(found[0]) / 2**10 if found else None
