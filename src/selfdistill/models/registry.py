"""`build_student`: a plain network by name, from one of six sources or from the user's own code."""

import fnmatch
import importlib
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from ..errors import did_you_mean
from ..features.scores import ScoresAlone, returns_more
from ..imports import OBJECT, suggest_colon
from . import from_function
from .errors import find_misfit
from .public import PublicWeights

SOURCES = {  # prefix -> module with `list_names`, `knows`, `output` and `build`, imported on use
    "cifar": "cifar.registry",
    "torchvision": "from_torchvision",
    "timm": "from_timm",
    "smp": "from_smp",
    "efficientdet": "efficientdet",
    "hf": "from_hf",
}
OUTPUTS = ("image", "pixel")
BUILT: WeakKeyDictionary[nn.Module, tuple[str, dict[str, Any]]] = WeakKeyDictionary()  # what was built: name, options
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
    output: str | None = None,
    pretrained: bool = False,
    **options: Any,
) -> nn.Module:
    """The plain network `name`: images (b, *image_shape) -> class scores, in training mode.

    One blank image is run to see that the network takes `image_shape`.

    Args:
        name: `timm:NAME`, `torchvision:NAME`, `cifar:NAME`, `smp:ARCH/ENCODER`, `efficientdet:NAME`,
            `hf:FOLDER` or `package.module:function`. The function is looked for in the working directory too, and
            called with `num_classes=` and, where it names them, `in_channels=`, `in_chans=`, `image_shape=` and
            `pretrained=`.
        num_classes: How many classes the network scores.
        image_shape: (channels, height, width) of one image.
        output: What a score belongs to. "image": scores are (b, num_classes); "pixel": scores are
            (b, num_classes, height, width). None: whatever the network gives.
        pretrained: Whether the network starts from the weights that its library publishes.
        options: Further arguments of the network's constructor.

    Returns:
        The network, with the library's own parameter names.

    Raises:
        ValueError: with the nearest legal choice, for a name or an option that does not exist, a network with another
            output, pretrained weights that cannot be had, and an image size that the network cannot take.

    >>> student = build_student("cifar:resnet8", num_classes=10, image_shape=(3, 32, 32))
    >>> student.fc.out_features
    10
    """
    if output is not None and output not in OUTPUTS:
        raise ValueError(f"output={output!r} is not allowed{did_you_mean(output, OUTPUTS)}")
    prefix, colon, network = name.partition(":")
    if not prefix or not colon:
        raise ValueError(_say_unknown(name))
    if prefix in SOURCES and output is not None:
        _refuse_other_output(prefix, network, output)
    source = _import_source(prefix) if prefix in SOURCES else from_function
    student = source.build(
        network if prefix in SOURCES else name,
        num_classes=num_classes,
        image_shape=image_shape,
        pretrained=pretrained,
        options=options,
    )
    if prefix not in SOURCES and returns_more(student, image_shape):
        student = ScoresAlone(student)
    misfit = find_misfit(student, num_classes=num_classes, image_shape=image_shape, output=output)
    if misfit:
        raise ValueError(f"{name} {misfit.reason}") from misfit.error
    if prefix != OBJECT:
        BUILT[student] = name, options
    return student


def describe_weights(name: str) -> PublicWeights | None:
    """What is known of a network's public weights; None where there are none, or nothing is known.

    >>> describe_weights("timm:tf_efficientnet_lite0").mean
    (0.5, 0.5, 0.5)
    """
    prefix, _, network = name.partition(":")
    source = _import_source(prefix) if prefix in SOURCES else None
    return source.describe_weights(network) if hasattr(source, "describe_weights") else None


def list_students(pattern: str = "*") -> list[str]:
    """Every name with its prefix that fits a shell-style pattern, as a whole or after the prefix.

    Of cifar:wrn-DEPTH-WIDTH, where both are free, only the usual ones.

    >>> list_students("resnet32x4")
    ['cifar:resnet32x4']
    """
    networks = [(prefix, network) for prefix in SOURCES for network in _import_source(prefix).list_names()]
    return [
        name
        for name, network in ((f"{prefix}:{network}", network) for prefix, network in networks)
        if fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(network, pattern)
    ]


def _import_source(prefix: str) -> ModuleType:
    return importlib.import_module(f".{SOURCES[prefix]}", __package__)


def _refuse_other_output(prefix: str, network: str, output: str) -> None:
    """Raises `ValueError` for a network with the other output; `build` refuses one that does not exist."""
    source = _import_source(prefix)
    if source.knows(network) and source.output(network) != output:
        alternative = ALTERNATIVES[prefix, output].format(network)
        scored, needed = ("whole images", "pixels") if output == "pixel" else ("pixels", "whole images")
        raise ValueError(
            f"{prefix}:{network} scores {scored}, and the task needs scores of {needed}; set another task, or take"
            f" {alternative}"
        )


def _say_unknown(name: str) -> str:
    """The sentence about a name without a prefix."""
    names = [f"{prefix}:{name}" for prefix in SOURCES if _import_source(prefix).knows(name)]
    if names:
        return f"{name!r} does not say whose network it is; write {' or '.join(map(repr, names))}"
    hint = suggest_colon(name) or did_you_mean(name, list_students(), otherwise="", cutoff=0.75, last_after=":")
    prefixes = ", ".join(f"{prefix}:" for prefix in SOURCES)
    return f"no network is called {name!r}, a name begins with {prefixes} or package.module:{hint}"
