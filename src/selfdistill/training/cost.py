"""What a training step computes, beside what the student alone would."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..features.hooks import Hooks

TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d)
CONVOLUTIONS = (F.conv1d, F.conv2d)
PRODUCTS = (torch.matmul, torch.bmm, Tensor.matmul, Tensor.__matmul__, Tensor.bmm)
BACKWARD = 3  # forward and backward of a layer that is trained take three times the arithmetic of its forward


class StepCost(TorchFunctionMode):
    """Counts the multiply-adds of convolutions and matrix products while it is entered.

    `slowdown` is their number over that of a plain student's step: one pass over the batch, and its backward pass.
    What runs without gradients counts once, all else three times.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.student = student
        self.hooks = Hooks()
        self.total = self.student_total = 0.0
        self.images = 0  # that the student's first pass saw
        self.is_in_first_pass = False

    def __enter__(self) -> "StepCost":
        self.hooks.close()
        self.hooks = Hooks()
        self.hooks.on_input(self.student, self._begin_pass)
        self.hooks.on_output(self.student, self._end_pass)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.hooks.close()

    def _begin_pass(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if not self.images and inputs:
            self.images, self.is_in_first_pass = len(inputs[0]), True

    def _end_pass(self, *_: Any) -> None:
        self.is_in_first_pass = False

    def slowdown(self, batch_size: int) -> float | None:
        """How many times the arithmetic of a plain student's step; None where nothing was counted."""
        alone = BACKWARD * self.student_total * batch_size / self.images if self.images else 0
        return self.total / alone if alone else None

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        count = count_multiply_adds(func, args, output)
        if count:
            self.total += count * (BACKWARD if torch.is_grad_enabled() else 1)
            self.student_total += count * self.is_in_first_pass
        return output


def count_multiply_adds(func: Any, args: tuple[Any, ...], output: Any) -> int:
    """The multiply-adds of one call; 0 for functions that hardly compute."""
    if func in CONVOLUTIONS:
        return output.numel() * math.prod(args[1].shape[1:])
    if func in TRANSPOSED:
        return args[0].numel() * math.prod(args[1].shape[1:])
    if func is F.linear or func in PRODUCTS:
        return output.numel() * args[0].shape[-1]
    if func is F.scaled_dot_product_attention:
        return 2 * args[0].numel() * args[1].shape[-2]
    return 0
