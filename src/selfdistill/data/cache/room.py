"""Checks whether there is room for decoded images."""

import math
import os
from pathlib import Path

import torch

GIB = 2**30
ALTERNATIVES = {
    "device": "take memory, disk or none",
    "memory": "take disk or none",
    "disk": "name another folder in SELFDISTILL_CACHE, or take none",
}


def refuse_too_large(cache: str, needed: int, free: float, where: str) -> None:
    """Raises `ValueError` if more bytes are needed than free."""
    if needed > free:
        raise ValueError(describe_no_room(cache, needed, free, where))


def describe_no_room(cache: str, needed: int, free: float, where: str) -> str:
    figures = f"{needed / GIB:.3g} GiB, and {where} has {free / GIB:.3g} GiB free"
    return f"machine.cache={cache} would keep decoded images of {figures}; {ALTERNATIVES[cache]}"


def count_free_bytes(device: torch.device) -> float:
    """Free bytes on a device; infinity if the system does not report them."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    lines = Path("/proc/meminfo").read_text().splitlines() if os.path.exists("/proc/meminfo") else []
    kib = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
    return kib[0] * 2.0**10 if kib else math.inf
