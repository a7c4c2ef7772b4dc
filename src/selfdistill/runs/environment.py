"""environment.json: what results may depend on beside the recipe: versions, hardware, code, command."""

import os
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from pydantic import BaseModel

PACKAGES = ("torch", "torchvision", "timm", "accelerate", "selfdistill")


class Commit(BaseModel):
    """The git commit of the working directory."""

    commit: str
    dirty: bool  # whether a tracked file differs from it


class Environment(BaseModel):
    """environment.json: what results may depend on beside the recipe; None for what is not known."""

    started: str | None = None  # UTC, ISO 8601
    command: str | None = None
    folder: str | None = None  # the working directory
    git: Commit | None = None
    python: str | None = None
    versions: dict[str, str | None] = {}
    platform: str | None = None
    cpu: str | None = None
    cores: int | None = None  # that this process may use
    threads: int | None = None  # of torch
    memory_mib: int | None = None
    gpus: list[str] = []
    cuda: str | None = None
    data: dict[str, str] | None = None  # the fingerprint of each split
    processes: int = 1
    precision: str | None = None
    sources: dict[str, str] | None = None  # SHA-256 of each of the user's modules, of a teacher's and a start's weights
    recipe: str | None = None  # SHA-256 of recipe.yaml
    resumed: list["Environment"] = []  # of each time that the run went on


def describe_environment(
    *,
    data: dict[str, str] | None = None,
    processes: int = 1,
    precision: str | None = None,
    sources: dict[str, str] | None = None,
    recipe: str | None = None,
) -> Environment:
    """The environment of this process, and what a run adds to it."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return Environment(
        started=now(),
        command=shlex.join(sys.argv),
        folder=str(Path.cwd()),
        git=_read_commit(),
        python=platform.python_version(),
        versions={package: _find_version(package) for package in PACKAGES},
        platform=platform.platform(),
        cpu=_read_cpu(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        threads=torch.get_num_threads(),
        memory_mib=_read_memory_mib(),
        gpus=gpus,
        cuda=torch.version.cuda if gpus else None,
        data=data,
        processes=processes,
        precision=precision,
        sources=sources,
        recipe=recipe,
    )


def computes_bfloat16(kind: str) -> bool:
    """Whether devices of this kind ("cuda", "cpu", ...) compute with bfloat16 natively on this machine.

    A CPU does where it has AMX or AVX512-BF16; others emulate it, which is slower than float32.
    """
    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "cpu" and not _list_cpu_features().isdisjoint({"amx_bf16", "avx512_bf16"})


def _list_cpu_features() -> set[str]:
    """Instruction sets of the CPU, from torch where it has the function, else from Linux; else none."""
    get_capabilities = getattr(torch.cpu, "get_capabilities", None)
    if get_capabilities is not None:
        return {name for name, value in get_capabilities().items() if value is True}
    return set((_read_cpu_line("flags") or "").split())


def _read_commit() -> Commit | None:
    """None outside a repository."""
    try:
        commit, changes = (
            subprocess.run(
                ["git", "--no-optional-locks", *words], capture_output=True, text=True, check=True, timeout=20
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return Commit(commit=commit, dirty=bool(changes))


def _read_cpu() -> str:
    return _read_cpu_line("model name") or platform.processor() or platform.machine()


def _read_cpu_line(name: str) -> str | None:
    """The value of this name for the first core in Linux's /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), None)


def _read_memory_mib() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    except (AttributeError, OSError, ValueError):
        return None


def _find_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
