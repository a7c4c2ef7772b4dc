"""What training costs: parameters and peak memory."""

from pathlib import Path

import torch
from torch import nn

from .method import Method


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
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the resident set's high-water mark


def peak_memory_mib(device: torch.device) -> float | None:
    """Since the last reset: the GPU's allocations, or the resident set of this process where the system tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = [line.split()[1] for line in lines if line.startswith("VmHWM")]
    return int(found[0]) / 2**10 if found else None
