"""`timm:NAME`: every architecture of timm, with its pretrained weights."""

from typing import Any

import timm
import torch
from timm.data import ImageNetInfo, infer_imagenet_subset
from timm.models import get_deprecated_models, get_pretrained_cfg, is_model_pretrained
from torch import nn

from ..errors import did_you_mean
from .errors import build_error, find_misfit, list_options, refuse_fixed
from .public import PublicWeights

FIXED = {  # options of create_model that would have no effect, or break what the student must be
    "in_chans": "follows from the data's channels",
    "img_size": "follows from the data's image size",
    "features_only": "would leave a network without class scores",
    "checkpoint_path": "would be read again wherever the student is rebuilt; give pretrained=true and"
    " pretrained_cfg_overlay={file: ...}",
}


def list_names() -> list[str]:
    """Every architecture; a pretrained tag may follow a dot."""
    return timm.list_models()


def knows(network: str) -> bool:
    """Whether `build` takes `network`, a pretrained tag aside."""
    return network.partition(".")[0] in list_names()


def output(network: str) -> str:
    """What a score of `network` belongs to."""
    return "image"


def describe_weights(network: str) -> PublicWeights | None:
    """What timm says of the pretrained weights of `network`; None where it does not say it."""
    cfg = get_pretrained_cfg(network)
    if cfg is None or not cfg.mean or not cfg.std:
        return None
    subset = infer_imagenet_subset(cfg.to_dict())
    info = None if subset is None else ImageNetInfo(subset)
    classes = info and [
        [info.index_to_label_name(k), *info.index_to_description(k).split(", ")] for k in range(info.num_classes())
    ]
    return PublicWeights(cfg.mean, cfg.std, (cfg.input_size[1], cfg.input_size[2]), classes)


def build(
    network: str, *, num_classes: int, image_shape: tuple[int, int, int], pretrained: bool, options: dict[str, Any]
) -> nn.Module:
    """`timm:network`, built for the image size where its size is fixed at building; errors as `build_student`."""
    student = f"timm:{network}"
    _check_name(network)
    refuse_fixed(student, options, FIXED)
    has_own_weights = "pretrained_cfg" in options or "pretrained_cfg_overlay" in options
    if pretrained and not has_own_weights and not is_model_pretrained(network):
        hint = did_you_mean(network, timm.list_models(pretrained=True, include_tags=False), "timm:")
        raise ValueError(f"timm has no weights for {student}, so pretrained must be false{hint}")
    arguments = {"pretrained": pretrained, "num_classes": num_classes, "in_chans": image_shape[0], **options}
    cfg = get_pretrained_cfg(network)
    if cfg is None or not cfg.fixed_input_size or cfg.input_size[1:] == image_shape[1:]:
        return _create(network, arguments, options)
    resized = _create(network, arguments | {"img_size": image_shape[1:]}, options)
    if not find_misfit(resized, num_classes=num_classes, image_shape=image_shape):
        return resized
    plain = _create(network, arguments, options)  # a few, such as crossvit, resize the images themselves
    return resized if find_misfit(plain, num_classes=num_classes, image_shape=image_shape) else plain


def _create(network: str, arguments: dict[str, Any], options: dict[str, Any]) -> nn.Module:
    try:
        return timm.create_model(network, **arguments)
    except Exception as error:
        raise build_error(
            f"timm:{network}",
            error,
            options,
            legal=lambda: _list_options(network),
            pretrained=arguments["pretrained"],
            purpose=f" for images of {arguments['img_size']}" if "img_size" in arguments else "",
        ) from error


def _check_name(network: str) -> None:
    architecture, _, tag = network.partition(".")
    if architecture not in list_names():
        new_name = get_deprecated_models().get(architecture)
        hint = did_you_mean(architecture, list_names(), "timm:")
        if new_name:
            hint = f"; timm now calls it 'timm:{new_name}'"
        raise ValueError(f"no network is called 'timm:{network}'{hint}")
    tagged = timm.list_models(architecture, include_tags=True)
    if tag and network not in tagged:
        raise ValueError(f"timm:{architecture} has no weights tagged {tag!r}{did_you_mean(network, tagged, 'timm:')}")


def _list_options(network: str) -> list[str]:
    """The options of the network's class, for suggestions."""
    with torch.device("meta"):
        student = timm.create_model(network)
    return list_options(type(student), (*FIXED, "num_classes", "device", "dtype"))
