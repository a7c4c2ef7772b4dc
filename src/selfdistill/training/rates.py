"""Learning rates by layer: groups of parameters whose `lr_scale` timm's schedules multiply the rate by."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import nn

from ..config.recipe import OptimPart


class Rate(NamedTuple):
    """The parameters that learn at one rate."""

    first: str  # the name of the first one
    count: int  # of values
    lr: float  # at its height
    weight_decay: float


def group_by_rate(module: nn.Module, optim: OptimPart) -> list[dict[str, Any]]:
    """Groups for an optimizer: the student's layers from the last to the first, then what only training needs.

    The student's last layer learns at `optim.lr`, each one before it at `optim.layer_decay` times the rate of the next;
    what only training needs at `optim.method_lr`, with `optim.method_decay`.
    """
    assert optim.lr is not None
    student = getattr(module, "student", module)
    decay, layers = optim.layer_decay or 1.0, number_layers(student)
    last = max(layers.values(), default=0)
    scales = {id(parameter): decay ** (last - layers[name]) for name, parameter in student.named_parameters()}
    others = 1.0 if optim.method_lr is None else optim.method_lr / optim.lr
    groups: dict[tuple[bool, float, float], dict[str, Any]] = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        is_spared = optim.decay == "weights" and (parameter.ndim <= 1 or name.endswith(".bias"))
        is_other = id(parameter) not in scales
        chosen = optim.method_decay if is_other and optim.method_decay is not None else optim.weight_decay
        scale, weight_decay = scales.get(id(parameter), others), 0.0 if is_spared else chosen
        key = is_other, -scale, weight_decay
        new = {"params": [], "lr_scale": scale, "weight_decay": weight_decay, "name": name}
        groups.setdefault(key, new)["params"].append(parameter)
    return [groups[key] for key in sorted(groups)]


def list_rates(module: nn.Module, optim: OptimPart) -> Iterator[Rate]:
    """The rate of each group, in the order above."""
    for group in group_by_rate(module, optim):
        count = sum(parameter.numel() for parameter in group["params"])
        yield Rate(group["name"], count, (optim.lr or 0.0) * group["lr_scale"], group["weight_decay"])


def number_layers(student: nn.Module) -> dict[str, int]:
    """The number of the layer that each parameter belongs to, counted from the images.

    Of timm's networks as these say; of others a layer is a block of a stage, with the norms behind it.
    """
    if hasattr(student, "group_matcher"):
        from timm.models import group_parameters

        return group_parameters(student, student.group_matcher(coarse=False), reverse=True)
    parameters = dict(student.named_parameters())
    blocks: dict[str, list[str]] = {}
    for name in parameters:
        blocks.setdefault(_name_block(name), []).append(name)
    numbers, layer = {}, -1
    for names in blocks.values():
        layer += layer < 0 or any(parameters[name].ndim > 1 for name in names)
        numbers |= dict.fromkeys(names, layer)
    return _join_decoder(numbers)


def _join_decoder(numbers: dict[str, int]) -> dict[str, int]:
    """The same with one layer for all that follows an encoder, and is new where that is trained."""
    for encoder in ("encoder.", "backbone."):
        inside = [number for name, number in numbers.items() if name.startswith(encoder)]
        if inside:
            return {name: min(number, max(inside) + 1) for name, number in numbers.items()}
    return numbers


def _name_block(name: str) -> str:
    """The block that a parameter lies in: its name up to the first number, and one that follows; else its module.

    >>> _name_block("layer1.0.conv1.weight"), _name_block("features.4.block.1.fc1.weight"), _name_block("conv1.weight")
    ('layer1.0', 'features.4', 'conv1')
    """
    *outer, _ = parts = name.split(".")[:-1] or [name]
    first = next((place for place, part in enumerate(outer) if part[-1].isdecimal()), None)
    if first is None:
        return ".".join(parts)
    follows = outer[first + 1 : first + 2]
    goes_on = follows and (follows[0] if outer[first].isdecimal() else follows[0][-1]).isdecimal()
    return ".".join(outer[: first + 1 + bool(goes_on)])
