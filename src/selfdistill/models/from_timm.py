"""`timm:NAME`: every architecture of timm, with its pretrained weights."""

from typing import Any

import torch
from torch import nn

from ..errors import nearest, reason
from .errors import blamed_option, fetch_failure, free_parameters, misfit, refuse_settled, refused_option
from .hub import quietly

OURS = {  # options of create_model that would have no effect, or break what the student must be
    "in_chans": "follows from the data's channels",
    "img_size": "follows from the data's image size",
    "features_only": "would leave a network without class scores",
    "checkpoint_path": "would be read again wherever the student is rebuilt; give pretrained=true and"
    " pretrained_cfg_overlay={file: ...}",
}


def names() -> list[str]:
    """Every architecture; a pretrained tag may follow a dot."""
    import timm

    return timm.list_models()


def knows(network: str) -> bool:
    """Whether `build` takes `network`, a pretrained tag aside."""
    return network.partition(".")[0] in names()


def output(network: str) -> str:
    """What a score of `network` belongs to."""
    return "image"


def build(
    network: str, *, num_classes: int, image_shape: tuple[int, int, int], pretrained: bool, options: dict[str, Any]
) -> nn.Module:
    """`timm:network`, built for the image size where its size is fixed at building; errors as `build_student`."""
    from timm.models import get_pretrained_cfg, is_model_pretrained

    student = f"timm:{network}"
    _check_name(network)
    refuse_settled(student, options, OURS)
    local = "pretrained_cfg" in options or "pretrained_cfg_overlay" in options
    if pretrained and not local and not is_model_pretrained(network):
        raise ValueError(f"timm has no weights for {student}, so pretrained must be false{_pretrained_like(network)}")
    given = {"pretrained": pretrained, "num_classes": num_classes, "in_chans": image_shape[0], **options}
    cfg = get_pretrained_cfg(network)
    if cfg is None or not cfg.fixed_input_size or cfg.input_size[1:] == image_shape[1:]:
        return _create(network, given, options)
    net = _create(network, given | {"img_size": image_shape[1:]}, options)
    if misfit(net, num_classes=num_classes, image_shape=image_shape):
        plain = _create(network, given, options)  # a few, such as crossvit, resize the images themselves
        return net if misfit(plain, num_classes=num_classes, image_shape=image_shape) else plain
    return net


def _create(network: str, given: dict[str, Any], options: dict[str, Any]) -> nn.Module:
    import timm

    try:
        with quietly():
            return timm.create_model(network, **given)
    except Exception as error:
        student = f"timm:{network}"
        blamed = blamed_option(error, options) if isinstance(error, TypeError) else None
        if blamed:
            raise refused_option(student, blamed, _options(network)) from None
        if given["pretrained"]:
            raise fetch_failure(student, error) from error
        size = f" for images of {given['img_size']}" if "img_size" in given else ""
        extra = f" with {options}" if options else ""
        raise ValueError(f"{student} cannot be built{size}{extra} ({reason(error)})") from error


def _check_name(network: str) -> None:
    import timm
    from timm.models import get_deprecated_models

    architecture, _, tag = network.partition(".")
    if architecture not in names():
        renamed = get_deprecated_models().get(architecture)
        hint = f"; timm now calls it 'timm:{renamed}'" if renamed else nearest(architecture, names(), "timm:")
        raise ValueError(f"no network is called 'timm:{network}'{hint}")
    tagged = timm.list_models(architecture, include_tags=True)
    if tag and network not in tagged:
        raise ValueError(f"timm:{architecture} has no weights tagged {tag!r}{nearest(network, tagged, 'timm:')}")


def _pretrained_like(network: str) -> str:
    import timm

    return nearest(network, timm.list_models(pretrained=True, include_tags=False), "timm:")


def _options(network: str) -> list[str]:
    """What may be given to the network's class, for suggestions."""
    import timm

    with torch.device("meta"):
        net = timm.create_model(network)
    return free_parameters(type(net), (*OURS, "num_classes", "device", "dtype"))
