"""Losses are computed in float32 where their arguments are in half precision."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")


def in_float32(loss: Callable[P, R]) -> Callable[P, R]:
    """Decorator: half-precision arguments become float32, and autocast is off inside."""

    @functools.wraps(loss)
    def loss_in_float32(*args: Any, **kwargs: Any) -> Any:
        wide = [_widen(arg) for arg in args]
        kwargs = {name: _widen(arg) for name, arg in kwargs.items()}
        device = next(arg.device.type for arg in (*wide, *kwargs.values()) if isinstance(arg, Tensor))
        with torch.autocast(device, enabled=False):
            return loss(*wide, **kwargs)

    return loss_in_float32


def _widen(value: Any) -> Any:
    half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return value.float() if half else value
