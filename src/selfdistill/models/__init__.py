"""Plain networks by name: for whole images timm's, torchvision's and small ones, for pixels smp's, torchvision's and
the paper's, and the user's own."""

import fnmatch
import importlib
from types import ModuleType
from typing import Any

from torch import nn

from ..errors import nearest
from .errors import misfit

SOURCES = {  # prefix -> module, loaded on use
    "cifar": "cifar",
    "torchvision": "from_torchvision",
    "timm": "from_timm",
    "smp": "from_smp",
    "efficientdet": "efficientdet",
}
KINDS = ("classification", "segmentation")
INSTEAD = {  # where a network is for the other task: prefix -> what to write for the network's name
    ("timm", "segmentation"): "smp:Unet/{}",
    ("cifar", "segmentation"): "smp:Unet/resnet18",
    ("torchvision", "segmentation"): "torchvision:deeplabv3_resnet50",
    ("torchvision", "classification"): "torchvision:resnet50",
    ("smp", "classification"): "timm:resnet50",
    ("efficientdet", "classification"): "timm:efficientnet_b0",
}


def build_student(
    name: str,
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    kind: str = "classification",
    pretrained: bool = False,
    **options: Any,
) -> nn.Module:
    """The plain network `name`: images (b, *image_shape) -> class scores, in training mode.

    `kind` is the task's: for "classification" the scores are (b, num_classes), for "segmentation" they have the images'
    height and width besides. `name` is `timm:NAME`, `torchvision:NAME`, `cifar:NAME`, `smp:ARCH/ENCODER`,
    `efficientdet:NAME` or `package.module:function`, where the working directory is searched too; the function is
    called with `num_classes=` and, where it names them, `in_channels=`, `in_chans=`, `image_shape=` and `pretrained=`.
    `options` go to the network's constructor. One blank image is run to see that the network takes `image_shape`.
    Raises `ValueError`, with the nearest legal choice, for a name or an option that does not exist, a network for the
    other task, pretrained weights that cannot be had, and an image size that the network cannot take.
    """
    if kind not in KINDS:
        raise ValueError(f"no task is called {kind!r}{nearest(kind, KINDS)}")
    prefix, colon, network = name.partition(":")
    if not prefix or not colon:
        raise ValueError(_without_prefix(name))
    if prefix in SOURCES:
        _refuse_other_task(prefix, network, kind)
    request = {"num_classes": num_classes, "image_shape": image_shape, "pretrained": pretrained, "options": options}
    net = _source(prefix).build(network, **request) if prefix in SOURCES else _own(prefix, network, request)
    problem = misfit(net, num_classes=num_classes, image_shape=image_shape, kind=kind)
    if problem:
        raise ValueError(f"{name} {problem}")
    return net


def list_students(pattern: str = "*") -> list[str]:
    """Every name with its prefix that fits a shell-style pattern, as a whole or behind the prefix.

    Of cifar:wrn-DEPTH-WIDTH, where both are free, only the usual ones.

    >>> list_students("resnet32x4")
    ['cifar:resnet32x4']
    """
    networks = [(prefix, network) for prefix in SOURCES for network in _source(prefix).names()]
    return [
        name
        for name, network in ((f"{prefix}:{network}", network) for prefix, network in networks)
        if fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(network, pattern)
    ]


def task_of(name: str) -> str:
    """The kind of task that a network is for by its name; classification for one of the user's own."""
    prefix, _, network = name.partition(":")
    known = prefix in SOURCES and _source(prefix).knows(network)
    return _source(prefix).kind(network) if known else "classification"


def _source(prefix: str) -> ModuleType:
    return importlib.import_module(f".{SOURCES[prefix]}", __name__)


def _own(module: str, function: str, request: dict[str, Any]) -> nn.Module:
    from .from_function import build

    return build(module, function, **request)


def _refuse_other_task(prefix: str, network: str, kind: str) -> None:
    """Raises `ValueError` for a network of the other task; one that does not exist is for `build` to refuse."""
    source = _source(prefix)
    if source.knows(network) and source.kind(network) != kind:
        instead = INSTEAD[prefix, kind].format(network)
        raise ValueError(
            f"{prefix}:{network} is for task={source.kind(network)}, not {kind}; set the task, or take {instead}"
        )


def _without_prefix(name: str) -> str:
    known = [f"{prefix}:{name}" for prefix in SOURCES if _source(prefix).knows(name)]
    if known:
        return f"{name!r} does not say whose network it is; write {' or '.join(map(repr, known))}"
    near = nearest(name, list_students())
    beginnings = ", ".join(f"{prefix}:" for prefix in SOURCES)
    return f"no network is called {name!r}, a name begins with {beginnings} or package.module:{near}"
