"""What a network is called that somebody else has built, so that it can be built again."""

import sys
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn

from ..features.modes import set_mode
from .registry import BUILT, build_student


class Origin(NamedTuple):
    """The name and the options with which `build_student` builds a network."""

    name: str
    options: dict


def identify(network: nn.Module, *, num_classes: int, image_shape: tuple[int, int, int]) -> Origin | None:
    """The origin of a network of timm, of torchvision or of `build_student`; None where it cannot be told.

    A network that is built anew and has the same weights must give the same scores.
    """
    for origin in _list_candidates(network):
        try:
            with torch.random.fork_rng(devices=[]):
                twin = build_student(origin.name, num_classes=num_classes, image_shape=image_shape, **origin.options)
        except (ValueError, RuntimeError):
            continue
        if _computes_the_same(network, twin, image_shape):
            return origin
    return None


def _list_candidates(network: nn.Module) -> Iterator[Origin]:
    if network in BUILT:
        yield Origin(*BUILT[network])
    cfg = getattr(network, "pretrained_cfg", None) or {}
    if isinstance(cfg, dict) and cfg.get("architecture"):
        yield Origin(f"timm:{cfg['architecture']}", {})
    module = type(network).__module__
    if module.startswith("torchvision.models.") and "segmentation" not in module:
        from . import from_torchvision

        builders = vars(sys.modules[module])
        yield from (Origin(f"torchvision:{name}", {}) for name in from_torchvision.list_names() if name in builders)


def _computes_the_same(network: nn.Module, twin: nn.Module, image_shape: tuple[int, int, int]) -> bool:
    """Whether the twin takes all weights and then gives the same scores for one image of noise, in eval mode."""
    state, own = network.state_dict(), twin.state_dict()
    if state.keys() != own.keys() or any(getattr(own[k], "shape", 0) != getattr(state[k], "shape", 0) for k in own):
        return False
    twin.load_state_dict(state)
    parameter = next(iter(network.parameters()), torch.zeros(()))
    image = torch.rand(1, *image_shape, generator=torch.Generator().manual_seed(0)).to(parameter)
    twin.to(parameter)
    try:
        with set_mode(network, training=False), set_mode(twin, training=False), torch.no_grad():
            return torch.equal(network(image), twin(image))
    except Exception:  # of a network that cannot take such images, which others tell
        return False
