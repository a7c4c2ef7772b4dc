"""Plain networks by name: for whole images timm's, torchvision's and small ones, for pixels smp's, torchvision's and
the paper's, and the user's own."""

import fnmatch
import importlib
from types import ModuleType
from typing import Any, Literal

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
OUTPUTS = ("image", "pixel")
ALTERNATIVES = {  # (source, output that the task needs) -> a network that has it; {} is the name that was asked for
    ("timm", "pixel"): "smp:Unet/{}",
    ("cifar", "pixel"): "smp:Unet/resnet18",
    ("torchvision", "pixel"): "torchvision:deeplabv3_resnet50",
    ("torchvision", "image"): "torchvision:resnet50",
    ("smp", "image"): "timm:resnet50",
    ("efficientdet", "image"): "timm:efficientnet_b0",
}


def build_student(
    name: str,
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    output: str = "image",
    pretrained: bool = False,
    **options: Any,
) -> nn.Module:
    """The plain network `name`: images (b, *image_shape) -> class scores, in training mode.

    `output` says what a score belongs to: with "image" the scores are (b, num_classes), with "pixel" they are
    (b, num_classes, height, width). `name` is `timm:NAME`, `torchvision:NAME`, `cifar:NAME`, `smp:ARCH/ENCODER`,
    `efficientdet:NAME` or `package.module:function`, where the working directory is searched too; the function is
    called with `num_classes=` and, where it names them, `in_channels=`, `in_chans=`, `image_shape=` and `pretrained=`.
    `options` go to the network's constructor. One blank image is run to see that the network takes `image_shape`.
    Raises `ValueError`, with the nearest legal choice, for a name or an option that does not exist, a network with the
    other output, pretrained weights that cannot be had, and an image size that the network cannot take.
    """
    if output not in OUTPUTS:
        raise ValueError(f"output={output!r} is not allowed{nearest(output, OUTPUTS)}")
    prefix, colon, network = name.partition(":")
    if not prefix or not colon:
        raise ValueError(_without_prefix(name))
    if prefix in SOURCES:
        _refuse_other_output(prefix, network, output)
    request = {"num_classes": num_classes, "image_shape": image_shape, "pretrained": pretrained, "options": options}
    net = _source(prefix).build(network, **request) if prefix in SOURCES else _own(prefix, network, request)
    problem = misfit(net, num_classes=num_classes, image_shape=image_shape, output=output)
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


def output_of(name: str) -> Literal["image", "pixel"]:
    """What a score of the named network belongs to; "image" for a network of the user's own."""
    prefix, _, network = name.partition(":")
    known = prefix in SOURCES and _source(prefix).knows(network)
    return _source(prefix).output(network) if known else "image"


def _source(prefix: str) -> ModuleType:
    return importlib.import_module(f".{SOURCES[prefix]}", __name__)


def _own(module: str, function: str, request: dict[str, Any]) -> nn.Module:
    from .from_function import build

    return build(module, function, **request)


def _refuse_other_output(prefix: str, network: str, output: str) -> None:
    """Raises `ValueError` for a network with the other output; `build` refuses one that does not exist."""
    source = _source(prefix)
    if source.knows(network) and source.output(network) != output:
        alternative = ALTERNATIVES[prefix, output].format(network)
        given, needed = ("whole images", "pixels") if output == "pixel" else ("pixels", "whole images")
        raise ValueError(
            f"{prefix}:{network} scores {given}, and the task needs scores of {needed}; set another task, or take"
            f" {alternative}"
        )


def _without_prefix(name: str) -> str:
    known = [f"{prefix}:{name}" for prefix in SOURCES if _source(prefix).knows(name)]
    if known:
        return f"{name!r} does not say whose network it is; write {' or '.join(map(repr, known))}"
    near = nearest(name, list_students())
    beginnings = ", ".join(f"{prefix}:" for prefix in SOURCES)
    return f"no network is called {name!r}, a name begins with {beginnings} or package.module:{near}"
