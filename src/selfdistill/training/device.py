"""What a recipe's device and precision are on this machine."""

import torch

from ..config.recipe import Recipe
from ..runs.environment import computes_bfloat16


def settled_precision(recipe: Recipe) -> str:
    """fp32, bf16 or fp16: what the recipe's precision is on this machine."""
    kind = device_kind(recipe)
    if recipe.precision == "fp16" and kind == "cpu":
        raise ValueError("precision=fp16 needs a GPU; on a CPU use bf16 or fp32")
    if recipe.precision == "auto":
        return "bf16" if computes_bfloat16(kind) else "fp32"
    return recipe.precision


def device_kind(recipe: Recipe) -> str:
    """cuda, mps or cpu: what `machine.device` is on this machine; raises `ValueError` where there is no such device."""
    kind = recipe.machine.device
    if kind in ("cuda", "mps") and not getattr(torch, kind).is_available():
        raise ValueError(f"machine.device={kind} and this machine has none; use auto or cpu")
    if kind == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return kind
