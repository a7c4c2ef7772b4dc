"""`smp:ARCH/ENCODER`: the networks of segmentation-models-pytorch, around its own encoders and all of timm's."""

import warnings
from typing import Any

import segmentation_models_pytorch as smp
import torch.nn.functional as F
from segmentation_models_pytorch.encoders import encoders as SMP_ENCODERS
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import get_pretrained_cfg, is_model_pretrained
from torch import Tensor, nn

from ..errors import did_you_mean
from . import from_timm
from .errors import build_error, find_blamed_option, list_options, option_error, refuse_fixed
from .public import PublicWeights

DILATED = ("DeepLabV3", "DeepLabV3Plus", "PAN")  # which take strides out of their encoders
UNSUPPORTED = {  # prefix of an encoder's name -> architectures that smp does not build around it
    "mit_": ("UnetPlusPlus", "Linknet"),
    **dict.fromkeys(("vgg", "densenet", "inception", "xception"), DILATED),
}
USUAL_VITS = ("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224")  # for DPT
ENLARGING = {"PSPNet": 0, "FPN": 3}  # depth of the encoder at which the head would have nothing to enlarge
OTHER_NORMALIZATION = ("dpn", "inception", "xception")  # encoders whose weights take other than ImageNet's mean and std
FIXED = {  # options of the constructors that would have no effect, or give something that is not a student
    "encoder_name": "is not an option, it is part of the student's name",
    "encoder_weights": "is not an option; set pretrained=true",
    "in_channels": "follows from the data's channels",
    "classes": "follows from the data",
    "activation": "would replace the class scores, which the losses need as they are",
    "aux_params": "would make the network return more than class scores",
    "upsampling": "follows from the strides: the scores have the images' height and width",
    "img_size": "follows from the data's image size",
    "checkpoint_path": "would be read again wherever the student is rebuilt; set pretrained=true",
    "in_chans": "follows from the data's channels",
    **dict.fromkeys(("features_only", "out_indices", "output_stride", "pretrained"), "is the architecture's to choose"),
}
ANY_SIZE_OPTIONS = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})  # of timm's transformers; none fits all


class AnySize(nn.Module):
    """Base of the networks below, which lets them take images of any height and width.

    Images are padded at the right and at the bottom with zeros, the mean of normalized images, to the next multiple of
    the network's stride, and the scores are cropped. Images that need no padding are scored as by smp's own network.
    Batch norms count the zeros in while training.
    """

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        padded = F.pad(images, (0, -width % self.multiple, 0, -height % self.multiple))
        return super().forward(padded)[:, :, :height, :width]

    @property
    def multiple(self) -> int:
        """What smp's network needs height and width to be multiples of, in pixels."""
        deeper = 2 if hasattr(self.encoder, "output_strides") else 1  # DPT halves the deepest map of its ViT once more
        return deeper * self.encoder.output_stride


class Unet(AnySize, smp.Unet): ...


class UnetPlusPlus(AnySize, smp.UnetPlusPlus): ...


class MAnet(AnySize, smp.MAnet): ...


class Linknet(AnySize, smp.Linknet): ...


class FPN(AnySize, smp.FPN): ...


class PSPNet(AnySize, smp.PSPNet): ...


class DeepLabV3(AnySize, smp.DeepLabV3): ...


class DeepLabV3Plus(AnySize, smp.DeepLabV3Plus): ...


class PAN(AnySize, smp.PAN): ...


class UPerNet(AnySize, smp.UPerNet): ...


class Segformer(AnySize, smp.Segformer): ...


class DPT(AnySize, smp.DPT): ...


ARCHITECTURES: dict[str, type[nn.Module]] = {  # by smp's spelling
    architecture.__name__: architecture
    for architecture in (
        *(Unet, UnetPlusPlus, MAnet, Linknet, FPN, PSPNet),
        *(DeepLabV3, DeepLabV3Plus, PAN, UPerNet, Segformer, DPT),
    )
}


def list_names() -> list[str]:
    """Every architecture around each of smp's own encoders that suits it, DPT around usual ViTs."""
    encoders = [encoder for encoder in SMP_ENCODERS if not encoder.startswith("timm-")]  # which timm's have replaced
    return [
        *(
            f"{architecture}/{encoder}"
            for architecture in ARCHITECTURES
            for encoder in encoders
            if architecture not in ("DPT", *_list_unsupported(encoder))
        ),
        *(f"DPT/{vit}" for vit in USUAL_VITS),
    ]


def knows(network: str) -> bool:
    """Whether `network` names an architecture and an encoder."""
    try:
        _split(network)
    except ValueError:
        return False
    return True


def output(network: str) -> str:
    """What a score of `network` belongs to."""
    return "pixel"


def describe_weights(network: str) -> PublicWeights | None:
    """What is known of the encoder's pretrained weights; None for smp's own with other than ImageNet's mean and std."""
    _, encoder = _split(network)
    if not encoder.startswith("tu-"):
        is_usual = not encoder.startswith(OTHER_NORMALIZATION)
        return PublicWeights(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD) if is_usual else None
    public = from_timm.describe_weights(encoder.removeprefix("tu-"))
    return None if public is None else PublicWeights(public.mean, public.std)


def build(
    network: str, *, num_classes: int, image_shape: tuple[int, int, int], pretrained: bool, options: dict[str, Any]
) -> nn.Module:
    """`smp:network`, which takes images of any size unless its encoder, a transformer, is bound to one.

    The network is smp's own with `AnySize`. An encoder is looked for among smp's own and then among timm's, which smp
    writes `tu-NAME`. `options` are those of smp's constructor; around an encoder of timm's also the encoder's.
    `pretrained` is the encoder's ImageNet weights. Errors as `build_student`.
    """
    student = f"smp:{network}"
    architecture, encoder = _split(network)
    _check_options(student, options, architecture, encoder)
    arguments = {
        "encoder_name": encoder,
        "encoder_weights": _choose_weights(student, encoder) if pretrained else None,
        "classes": num_classes,
        "in_channels": image_shape[0],
        **_choose_upsampling(architecture, options),
        **_choose_size(encoder, image_shape),
    }
    return _create(student, architecture, arguments, options)


def _split(network: str) -> tuple[str, str]:
    """Architecture and encoder as smp calls them; `ValueError` if there is none of this name."""
    name, _, encoder = network.partition("/")
    architecture = next((known for known in ARCHITECTURES if known.lower() == name.lower()), None)
    if architecture is None:
        raise ValueError(f"no network is called 'smp:{network}'{did_you_mean(name, ARCHITECTURES, 'smp:')}")
    usual = [*USUAL_VITS] if architecture == "DPT" else [*SMP_ENCODERS]
    if not encoder:
        raise ValueError(f"'smp:{network}' names no encoder; write 'smp:{architecture}/{usual[0]}'")
    if encoder in usual and architecture != "DPT":
        return architecture, encoder
    timm_name = encoder.removeprefix("tu-")
    if from_timm.knows(timm_name):
        return architecture, f"tu-{timm_name}"
    hint = did_you_mean(timm_name, [*usual, *from_timm.list_names()], f"smp:{architecture}/")
    raise ValueError(f"no encoder is called {encoder!r}{hint}")


def _list_unsupported(encoder: str) -> tuple[str, ...]:
    """The architectures that smp does not build around an encoder of its own."""
    return next((names for prefix, names in UNSUPPORTED.items() if encoder.startswith(prefix)), ())


def _check_options(student: str, options: dict[str, Any], architecture: str, encoder: str) -> None:
    refuse_fixed(student, options, FIXED)
    unsupported = _list_unsupported(encoder)
    if architecture in unsupported:
        others = [other for other in ARCHITECTURES if other not in (*unsupported, "DPT")]
        raise ValueError(f"smp builds no {architecture} around {encoder}; it builds {', '.join(others)}")
    legal = _list_options(architecture)
    for option in options:
        if option not in legal and not encoder.startswith("tu-"):  # smp drops what its own encoders do not take
            raise option_error(student, option, legal)


def _list_options(architecture: str) -> list[str]:
    """The options of the architecture's class."""
    return list_options(ARCHITECTURES[architecture].__init__, FIXED)


def _choose_weights(student: str, encoder: str) -> str | bool:
    """The weights for smp to fetch; `ValueError` if there are no ImageNet weights."""
    is_timms = encoder.startswith("tu-")
    if is_timms:
        exist = is_model_pretrained(encoder.removeprefix("tu-"))
    else:
        exist = "imagenet" in SMP_ENCODERS[encoder]["pretrained_settings"]
    if not exist:
        raise ValueError(f"there are no ImageNet weights for the encoder of {student}, so pretrained must be false")
    return True if is_timms else "imagenet"


def _choose_upsampling(architecture: str, options: dict[str, Any]) -> dict[str, int]:
    """What smp leaves to its caller: a head that enlarges as much as an encoder of this depth has shrunk."""
    if architecture not in ENLARGING or "encoder_depth" not in options:
        return {}
    depth, least = options["encoder_depth"], ENLARGING[architecture]
    return {"upsampling": 2 ** (depth - least)} if depth in (3, 4, 5) else {}


def _choose_size(encoder: str, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """The image size, rounded up to the stride, for encoders that are built for one size."""
    cfg = get_pretrained_cfg(encoder.removeprefix("tu-")) if encoder.startswith("tu-") else None
    if cfg is None or not cfg.fixed_input_size:
        return {}
    return {"img_size": tuple(-(-side // 32) * 32 for side in image_shape[1:])}


def _create(student: str, architecture: str, arguments: dict[str, Any], options: dict[str, Any]) -> nn.Module:
    """The network; a transformer is built for any image size if it can be."""
    for extra in ANY_SIZE_OPTIONS if "img_size" in arguments else ({},):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return ARCHITECTURES[architecture](**extra | arguments | options)
        except Exception as error:
            if find_blamed_option(error, extra):
                continue
            raise build_error(
                student,
                error,
                options,
                legal=lambda: _list_options(architecture),
                pretrained=bool(arguments["encoder_weights"]),
            ) from error
    raise AssertionError("the last try adds no option that could be blamed")
