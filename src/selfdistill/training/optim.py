"""Optimisers, schedules and moving averages of timm, chosen by a recipe's `optim` part."""

from typing import Any

import torch
from torch import nn

from ..config.recipe import OptimPart
from ..errors import nearest


def new_optimizer(module: nn.Module, optim: OptimPart) -> torch.optim.Optimizer:
    """An optimiser over every parameter that trains, each once."""
    from timm.optim import create_optimizer_v2, list_optimizers, param_groups_weight_decay

    name = optim.name
    if name not in (known := list_optimizers()):
        raise ValueError(f"optim.name={name!r} is not an optimiser of timm{nearest(name, known)}")
    if name == "sgd" and not optim.nesterov:
        name = "momentum"  # timm's word for SGD without Nesterov's look-ahead
    trained: Any = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if optim.decay == "weights":
        trained = param_groups_weight_decay(module, optim.weight_decay)
    try:
        return create_optimizer_v2(
            trained, opt=name, lr=optim.lr, weight_decay=optim.weight_decay, momentum=optim.momentum
        )
    except (AssertionError, ValueError, TypeError) as error:
        raise ValueError(f"optim.name={name!r} is not an optimiser of timm: {error}") from None


def new_schedule(optimizer: torch.optim.Optimizer, optim: OptimPart, steps: int) -> Any:
    """One of timm's schedules over `steps`; a pure function of the step, so there is no state to save."""
    from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, PolyLRScheduler

    warmup = round(optim.warmup * steps)
    rest = max(steps - warmup, 1)
    common = {
        "warmup_t": warmup,
        "warmup_lr_init": optim.lr / 100,
        "warmup_prefix": optim.schedule not in ("step", "constant"),
        "t_in_epochs": False,
    }
    if optim.schedule == "cosine":
        return CosineLRScheduler(optimizer, t_initial=rest, lr_min=optim.min_lr, **common)
    if optim.schedule in ("linear", "poly"):
        power = 1.0 if optim.schedule == "linear" else 0.9
        return PolyLRScheduler(optimizer, t_initial=rest, power=power, lr_min=optim.min_lr, **common)
    shares = optim.milestones if optim.schedule == "step" else []
    drops = [round(share * steps) + 1 for share in shares]  # timm drops one step before the one it is told
    return MultiStepLRScheduler(optimizer, decay_t=drops, decay_rate=optim.gamma, **common)


def new_ema(student: nn.Module, optim: OptimPart) -> Any:
    if optim.ema is None:
        return None
    from timm.utils import ModelEmaV3

    return ModelEmaV3(student, decay=optim.ema, use_warmup=True)
