"""What training costs: parameters and peak memory."""

from pathlib import Path

import torch
from torch import nn

from ..method import Method
from .memory import return_freed_memory


def count_method_parameters(method: Method) -> dict[str, int]:
    """How many values the student ships, and how many exist only for training, a frozen teacher's aside."""
    total, student = count_parameters(method), count_parameters(method.student)
    teacher = 0 if method.teacher is None else count_parameters(method.teacher)
    return {"student": student, "training_only": total - student - teacher}


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def reset_peak_memory(device: torch.device) -> None:
    """Makes `read_peak_memory` measure from now on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    return_freed_memory()  # else an earlier run of this process would be measured
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the resident set's high-water mark


def read_peak_memory(device: torch.device) -> float | None:
    """MiB since the last reset: allocated on the GPU, or resident in this process; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    high_water = [line.split()[1] for line in lines if line.startswith("VmHWM")]
    return int(high_water[0]) / 2**10 if high_water else None
