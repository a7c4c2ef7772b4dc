"""Which device and precision a run uses on this machine; the only file that imports accelerate."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ..config.recipe import Recipe
from ..distributed import default_device, world_size
from ..errors import did_you_mean
from ..runs.environment import computes_bfloat16

AUTOCAST = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}  # by accelerate's names


def choose_device(recipe: Recipe) -> str:
    """cuda, mps or cpu for `machine.device`; raises `ValueError` where this machine has no such device."""
    name = recipe.machine.device
    if name in ("cuda", "mps") and not getattr(torch, name).is_available():
        raise ValueError(f"machine.device={name} and this machine has none; use auto or cpu")
    if name == "auto":
        return default_device()
    return name


def count_local_processes() -> int:
    """How many of the processes that train together are on this machine, as the launcher says; else all of them."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or world_size())


def choose_precision(recipe: Recipe, student: nn.Module | None = None) -> str:
    """fp32, bf16 or fp16 for `precision`; raises `ValueError` for fp16 on a CPU.

    auto is bf16 where the device computes with it, except on a CPU for a `student` that it slows down.
    """
    device = choose_device(recipe)
    if recipe.precision == "fp16" and device == "cpu":
        raise ValueError("precision=fp16 needs a GPU; on a CPU use bf16 or fp32")
    if recipe.precision == "auto":
        is_slower = device == "cpu" and student is not None and has_depthwise(student)
        return "bf16" if computes_bfloat16(device) and not is_slower else "fp32"
    return recipe.precision


def has_depthwise(network: nn.Module) -> bool:
    """Whether any convolution has a filter for each channel: on CPUs these are slower in bfloat16."""
    convolutions = (module for module in network.modules() if isinstance(module, nn.Conv2d))
    return any(1 < convolution.groups == convolution.in_channels for convolution in convolutions)


def create_accelerator(recipe: Recipe, *, has_phases: bool = False) -> Any:
    """Accelerate's `Accelerator` for a run: its device, precision, trackers and processes.

    `has_phases`: which parameters have gradients changes during training.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs

    device, precision = choose_device(recipe), choose_precision(recipe)
    check_trackers(recipe.machine.track)
    forget_earlier_accelerator()
    # a static graph allows parameters without gradient, always the same ones, and no accumulation
    static = recipe.optim.accumulate == 1 and not has_phases
    return Accelerator(
        mixed_precision="no" if precision == "fp32" else precision,
        cpu=device == "cpu",
        log_with=recipe.machine.track or None,
        project_dir=Path(recipe.out or "."),
        kwargs_handlers=[DistributedDataParallelKwargs(static_graph=static, find_unused_parameters=not static)],
    )


def prepare(accelerator: Any, method: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Any, Callable[[], None]]:
    """Accelerate's module and optimizer, and what gives the method back without a trace of it.

    Accelerate's own way back leaves a mark, by which it takes a method that is trained once more for prepared already,
    and lets it compute in float32.
    """
    own_forward = vars(method).get("forward")
    module, optimizer = accelerator.prepare(method.train(), optimizer)

    def undo() -> None:
        accelerator.unwrap_model(module, keep_fp32_wrapper=False)
        for name in ("forward", "_is_accelerate_prepared"):
            vars(method).pop(name, None)
        if own_forward is not None:
            method.forward = own_forward

    return module, optimizer, undo


def forget_earlier_accelerator() -> None:
    """Lets this process have an accelerator of another precision than the one before.

    Accelerate keeps one state for the whole process and refuses another precision. It has no public way to reset the
    state, and a comparison trains many methods in one process; its own tests reset it in this way.
    """
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state()
    GradientState._reset_state()


def check_trackers(names: list[str]) -> None:
    """Raises `ValueError` for a tracker that accelerate does not know or that is not installed."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    available = {str(getattr(tracker, "value", tracker)) for tracker in get_available_trackers()}
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ValueError(
                f"machine.track={name} is no tracker of accelerate{did_you_mean(name, LOGGER_TYPE_TO_CLASS)}"
            )
        if name not in available:
            raise ValueError(f"machine.track={name} is not installed; pip install {name}")
