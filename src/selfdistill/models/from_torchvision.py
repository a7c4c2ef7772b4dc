"""`torchvision:NAME`: torchvision's networks that score images or pixels, with their pretrained weights."""

import inspect
from typing import Any

import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn
from torchvision import models
from torchvision.models import segmentation
from torchvision.models.vision_transformer import interpolate_embeddings

from ..errors import did_you_mean
from .errors import build_error, fetch_error, list_options, option_error, refuse_fixed
from .public import PublicWeights

FIXED = {  # options of the builders that would have no effect, or break what the student must be
    "weights": "is not an option; set pretrained=true",
    "aux_logits": "would make the network return more than class scores",
    "aux_loss": "would make the network return more than class scores",
    "weights_backbone": "is not an option; set pretrained=true",
    "transform_input": "is not an option; pretrained weights are adapted to the data's own normalization",
    "image_size": "follows from the data's image size",
    "input_size": "follows from the data's image size",
}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def list_names() -> list[str]:
    """Every network that scores images or pixels."""
    return [*models.list_models(module=models), *_list_segmenters()]


def knows(network: str) -> bool:
    """Whether `build` takes `network`."""
    return network in list_names()


def output(network: str) -> str:
    """What a score of `network` belongs to."""
    return "pixel" if network in _list_segmenters() else "image"


def describe_weights(network: str) -> PublicWeights:
    """What torchvision says of the pretrained weights of `network`."""
    weights = models.get_model_weights(network).DEFAULT
    shown = weights.transforms()
    size = (shown.crop_size[0], shown.crop_size[0]) if hasattr(shown, "crop_size") else None
    return PublicWeights(shown.mean, shown.std, size, [[name] for name in weights.meta["categories"]])


class ScoresOnly(nn.Module):
    """Base of torchvision's segmentation networks that return their scores instead of a dictionary that holds them."""

    def __init__(self, network: nn.Module) -> None:
        nn.Module.__init__(self)
        self.backbone, self.classifier, self.aux_classifier = network.backbone, network.classifier, None

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images)["out"]


class FCN(ScoresOnly, segmentation.FCN): ...


class DeepLabV3(ScoresOnly, segmentation.DeepLabV3): ...


class LRASPP(ScoresOnly, segmentation.LRASPP): ...


SCORES_ONLY: dict[type[nn.Module], type[nn.Module]] = {
    segmentation.FCN: FCN,
    segmentation.DeepLabV3: DeepLabV3,
    segmentation.LRASPP: LRASPP,
}


def build(
    network: str, *, num_classes: int, image_shape: tuple[int, int, int], pretrained: bool, options: dict[str, Any]
) -> nn.Module:
    """`torchvision:network` without auxiliary heads; errors as `build_student`.

    For other than 3 channels the first convolution is a new one. Pretrained weights are the `DEFAULT` ones; with
    another number of classes the classifier is new.
    """
    student = f"torchvision:{network}"
    _check_name(network)
    refuse_fixed(student, options, FIXED)
    if options and output(network) == "pixel":  # their builders drop what they are given
        raise option_error(student, next(iter(options)), [])
    net = _create(network, {"num_classes": num_classes, **_choose_fixed_options(network, image_shape)}, options)
    if output(network) == "pixel":
        net = SCORES_ONLY[type(net)](net)
    if image_shape[0] != 3:
        _replace_first_convolution(net, image_shape[0])
    if pretrained:
        _load_pretrained(net, network, image_shape)
    return net


def _list_segmenters() -> list[str]:
    return models.list_models(module=segmentation)


def _check_name(network: str) -> None:
    if knows(network):
        return
    if network in models.list_models():
        raise ValueError(f"torchvision:{network} does not score classes, neither of images nor of pixels")
    hint = did_you_mean(network, list_names(), "torchvision:")
    raise ValueError(f"no network is called 'torchvision:{network}'{hint}")


def _choose_fixed_options(network: str, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """The arguments that a few builders need: no auxiliary heads, and a fixed image size."""
    height, width = image_shape[1:]
    if output(network) == "pixel":
        return {"aux_loss": False, "weights_backbone": None}
    if network in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": True}
    if network.startswith("vit_"):
        if height != width:
            raise ValueError(f"torchvision:{network} takes square images only, not {height}x{width}")
        return {"image_size": height}
    return {"input_size": (height, width)} if network.startswith("maxvit_") else {}


def _create(network: str, arguments: dict[str, Any], options: dict[str, Any]) -> nn.Module:
    try:
        return models.get_model(network, **arguments | options)
    except Exception as error:
        raise build_error(f"torchvision:{network}", error, options, legal=lambda: _list_options(network)) from error


def _list_options(network: str) -> list[str]:
    """The options of the network's class, for suggestions."""
    constructor = inspect.signature(models.get_model_builder(network)).return_annotation
    return list_options(constructor, (*FIXED, "num_classes", "init_weights"))


def _find_first_convolution(net: nn.Module) -> tuple[str, nn.Conv2d]:
    return next((name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv2d))


def _replace_first_convolution(net: nn.Module, channels: int) -> None:
    """Gives `net` a stem for `channels` channels whose weights spread as much as the ones it had."""
    name, old = _find_first_convolution(net)
    new = nn.Conv2d(channels, old.out_channels, old.kernel_size, old.stride, old.padding, bias=old.bias is not None)
    nn.init.normal_(new.weight, std=old.weight.std().item())
    if old.bias is not None:
        new.bias.data.copy_(old.bias.data)
    net.set_submodule(name, new)


def _load_pretrained(net: nn.Module, network: str, image_shape: tuple[int, int, int]) -> None:
    """Copies torchvision's default weights into `net`, all but a classifier for other classes."""
    student = f"torchvision:{network}"
    state = _fetch_pretrained_state(network, net, image_shape[0])
    current = net.state_dict()
    fitting = {key for key, value in current.items() if key in state and state[key].shape == value.shape}
    layers = [name for name, module in net.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    classifiers = {layers[-1], *(name for name in layers if name.endswith("_classifier"))}
    differing = [key for key in current if key not in fitting and key.rpartition(".")[0] not in classifiers]
    differing += [key for key in state if key not in current and not key.startswith(("AuxLogits.", "aux_classifier."))]
    if differing:
        raise ValueError(f"the pretrained weights of {student} do not fit the options given: {differing[0]} differs")
    current.update({key: state[key] for key in fitting})  # in place, as MNASNet reads the version that it carries
    net.load_state_dict(current)


def _fetch_pretrained_state(network: str, net: nn.Module, channels: int) -> dict[str, Tensor]:
    """torchvision's default weights, adapted to the image size and channels of `net` but not to its classes."""
    weights = models.get_model_weights(network).DEFAULT
    try:
        # get_model would run whatever code the file holds: see first that it holds tensors alone
        weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
        source = models.get_model(network, weights=weights, progress=False)
    except Exception as error:
        raise fetch_error(f"torchvision:{network}", error) from error
    state = source.state_dict()
    stem, _ = _find_first_convolution(net)
    if getattr(source, "transform_input", False):
        _fold_normalization(state, stem)
    state[f"{stem}.weight"] = adapt_input_conv(channels, state[f"{stem}.weight"])
    if network.startswith("vit_"):
        return interpolate_embeddings(net.image_size, net.patch_size, state)
    return state


def _fold_normalization(state: dict[str, Tensor], stem: str) -> None:
    """Moves a change of input normalization, ImageNet's to mean and std 0.5, into the stem and its batch norm.

    It would otherwise be a flag that no state dict carries. Exact wherever the stem does not reach over the border.
    """
    mean, std, weight = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD), state[f"{stem}.weight"]
    offset = (weight.sum(dim=(2, 3)) * (mean - 0.5) / 0.5).sum(dim=1)
    state[f"{stem}.weight"] = weight * (std / 0.5).view(1, 3, 1, 1)
    running_mean = f"{stem.rpartition('.')[0]}.bn.running_mean"
    state[running_mean] = state[running_mean] - offset
