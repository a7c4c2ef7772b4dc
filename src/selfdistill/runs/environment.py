"""What a number may depend on beside the recipe: versions, hardware, code, command."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "torchvision", "timm", "accelerate", "selfdistill")


def environment(**extra: Any) -> dict[str, Any]:
    """What a number may depend on beside the recipe: versions, hardware, code, command and start; and `extra`."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "started": now(),
        "command": shlex.join(sys.argv),
        "folder": str(Path.cwd()),
        "git": _git(),
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in PACKAGES},
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_mib": _memory_mib(),
        "gpus": gpus,
        "cuda": torch.version.cuda if gpus else None,
        **extra,
    }


def computes_bfloat16(kind: str) -> bool:
    """Whether devices of a kind, "cuda" or "cpu", have bfloat16 arithmetic of their own here.

    Of CPUs those with AMX or AVX512-BF16: others emulate it, and lose by it. Any other kind has none.
    """
    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "cpu" and not _cpu_features().isdisjoint({"amx_bf16", "avx512_bf16"})


def _cpu_features() -> set[str]:
    """Instruction sets, as torch knows them or, before it told, Linux; none where neither does."""
    told = getattr(torch.cpu, "get_capabilities", None)
    if told is not None:
        return {name for name, value in told().items() if value is True}
    return set((_cpu_line("flags") or "").split())


def _git() -> dict[str, Any] | None:
    """Commit of the working directory and whether a tracked file differs from it; None outside a repository."""
    try:
        commit, changes = (
            subprocess.run(
                ["git", "--no-optional-locks", *words], capture_output=True, text=True, check=True, timeout=20
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(changes)}


def _cpu() -> str:
    return _cpu_line("model name") or platform.processor() or platform.machine()


def _cpu_line(name: str) -> str | None:
    """What Linux says of the first core under a name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)


def _memory_mib() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (AttributeError, OSError, ValueError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
