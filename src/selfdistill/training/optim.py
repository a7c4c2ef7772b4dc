"""Optimizers, schedules and moving averages of timm, chosen by a recipe's `optim` part."""

import bisect
from typing import Any

import torch
from torch import nn

from ..config.recipe import OptimPart, Recipe
from ..errors import did_you_mean
from .rates import group_by_rate


def create_optimizer(module: nn.Module, optim: OptimPart) -> torch.optim.Optimizer:
    """An optimizer over the parameters that train; raises `ValueError` for one that timm does not have."""
    from timm.optim import create_optimizer_v2, list_optimizers, param_groups_weight_decay

    name = optim.name
    if name not in (known := list_optimizers()):
        raise ValueError(f"optim.name={name!r} is not an optimizer of timm{did_you_mean(name, known)}")
    if name == "sgd" and not optim.nesterov:
        name = "momentum"  # timm's name for SGD without Nesterov's look-ahead
    parameters: Any = [parameter for parameter in module.parameters() if parameter.requires_grad]
    own_rate, own_decay = optim.method_lr not in (None, optim.lr), optim.method_decay not in (None, optim.weight_decay)
    if (optim.layer_decay or 1) < 1 or own_rate or own_decay:
        parameters = group_by_rate(module, optim)
    elif optim.decay == "weights":
        parameters = param_groups_weight_decay(module, optim.weight_decay)
    try:
        return create_optimizer_v2(
            parameters, opt=name, lr=optim.lr, weight_decay=optim.weight_decay, momentum=optim.momentum
        )
    except (AssertionError, ValueError, TypeError) as error:
        raise ValueError(f"optim.name={name!r} is not an optimizer of timm: {error}") from None


class Schedule:
    """The rates of every step: a schedule over `steps`, or one after the other where `optim.restarts` has any.

    A schedule that was added begins at a share of the rates, warms up as the first one did, and spans the steps up to
    the next. All of it is a pure function of the step, so there is no state to save.
    Source: Loshchilov, Hutter, 2017, https://arxiv.org/abs/1608.03983, for cosines.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, optim: OptimPart, steps: int) -> None:
        self.starts = [0, *(start for start, _, _ in optim.restarts)]
        ends = [*(planned for _, planned, _ in optim.restarts), steps]
        shares = [1.0, *(share for _, _, share in optim.restarts)]
        rates = [group["lr"] for group in optimizer.param_groups]
        self.parts = []
        for start, end, share in zip(self.starts, ends, shares, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["initial_lr"] = share * rate  # which timm takes for the rate at the top
            part = optim.model_copy(update={"lr": share * optim.lr})
            self.parts.append(create_schedule(optimizer, part, end - start))
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["initial_lr"] = rate

    def step_update(self, step: int) -> None:
        """Sets the rates of the step after so many."""
        number = bisect.bisect_right(self.starts, step) - 1
        self.parts[number].step_update(step - self.starts[number])


def create_schedule(optimizer: torch.optim.Optimizer, optim: OptimPart, steps: int) -> Any:
    """One of timm's schedules over `steps`."""
    from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, PolyLRScheduler

    warmup = round((optim.warmup or 0.0) * steps)
    steps_after_warmup = max(steps - warmup, 1)
    common = {
        "warmup_t": warmup,
        "warmup_lr_init": optim.lr / 100,
        "warmup_prefix": optim.schedule not in ("step", "constant"),
        "t_in_epochs": False,
    }
    if optim.schedule == "cosine":
        length = max(steps_after_warmup, 2)  # its first step is that of a length of 1, of which timm warns
        return CosineLRScheduler(optimizer, t_initial=length, lr_min=optim.min_lr, **common)
    if optim.schedule in ("linear", "poly"):
        power = 1.0 if optim.schedule == "linear" else 0.9
        return PolyLRScheduler(optimizer, t_initial=steps_after_warmup, power=power, lr_min=optim.min_lr, **common)
    shares = optim.milestones if optim.schedule == "step" else []
    drops = [round(share * steps) + 1 for share in shares]  # timm drops the rate one step before the given one
    return MultiStepLRScheduler(optimizer, decay_t=drops, decay_rate=optim.gamma, **common)


def create_ema(student: nn.Module, optim: OptimPart) -> Any:
    """timm's moving average of the student; None where `optim.ema` is not set."""
    if optim.ema is None:
        return None
    from timm.utils import (
        ModelEmaV3,
    )  # averages batch norms' statistics too, which modules/teachers.MovingAverage copies

    return ModelEmaV3(student, decay=optim.ema, use_warmup=True)


def clip_gradients(accelerator: Any, module: nn.Module, optim: OptimPart) -> None:
    """Clips the gradient's values and then its norm, where the recipe says so."""
    if optim.clip_value is None and optim.clip is None:
        return
    parameters = list(module.parameters())
    accelerator.unscale_gradients()  # once: accelerate's own clipping does it twice, which fp16 refuses
    if optim.clip_value is not None:
        nn.utils.clip_grad_value_(parameters, optim.clip_value)
    if optim.clip is not None:
        nn.utils.clip_grad_norm_(parameters, optim.clip)


def count_steps(recipe: Recipe, steps_per_epoch: int) -> tuple[int, int]:
    """How many optimizer steps the schedules span, and after how many training stops."""
    if recipe.epochs is None:
        assert recipe.max_steps is not None
        return recipe.max_steps, recipe.max_steps
    planned = recipe.epochs * steps_per_epoch
    return planned, min(planned, recipe.max_steps or planned)
