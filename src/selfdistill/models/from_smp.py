"""`smp:ARCH/ENCODER`: the networks of segmentation-models-pytorch, around its own encoders and all of timm's."""

import functools
import warnings
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import nearest, reason
from . import from_timm
from .errors import blamed_option, fetch_failure, free_parameters, refuse_settled, refused_option
from .hub import quietly

ARCHITECTURES = {  # smp's spelling by ours
    name.lower(): name
    for name in (
        *("Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet"),
        *("DeepLabV3", "DeepLabV3Plus", "PAN", "UPerNet", "Segformer", "DPT"),
    )
}
DILATED = ("DeepLabV3", "DeepLabV3Plus", "PAN")  # which take strides out of their encoders
UNSUITED = {  # beginning of an encoder's name: architectures that smp does not build around it
    "mit_": ("UnetPlusPlus", "Linknet"),
    **dict.fromkeys(("vgg", "densenet", "inception", "xception"), DILATED),
}
USUAL_VITS = ("vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224")  # for DPT
ENLARGED = {"PSPNet": 0, "FPN": 3}  # depth of the encoder at which the head would have nothing to enlarge
OURS = {  # options of the constructors that would have no effect, or break what the student must be
    "encoder_name": "is not an option, it is part of the student's name",
    "encoder_weights": "is not an option; set pretrained=true",
    "in_channels": "follows from the data's channels",
    "classes": "follows from the data",
    "activation": "would replace the class scores, which the losses need as they are",
    "aux_params": "would make the network return more than class scores",
    "upsampling": "follows from the strides: the scores have the images' height and width",
    "img_size": "follows from the data's image size",
    "in_chans": "follows from the data's channels",
    **dict.fromkeys(("features_only", "out_indices", "output_stride", "pretrained"), "is the architecture's to choose"),
}
FREED = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})  # how timm frees a transformer of its image size


class AnySize(nn.Module):
    """Before a network of smp: lets it take images of any height and width.

    They are filled up at the right and at the bottom with zeros, the mean of normalised images, to the next multiple of
    the network's stride, and the scores are cut back. Where nothing is to be filled up, the network is smp's own. Batch
    norms count the zeros in while training.
    """

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        filled = F.pad(images, (0, -width % self.multiple, 0, -height % self.multiple))
        return super().forward(filled)[:, :, :height, :width]

    @property
    def multiple(self) -> int:
        """What smp's network needs height and width to be multiples of, in pixels."""
        deeper = 2 if hasattr(self.encoder, "output_strides") else 1  # DPT halves the deepest map of its ViT once more
        return deeper * self.encoder.output_stride


def names() -> list[str]:
    """Every architecture around each of smp's own encoders that suits it, DPT around usual ViTs."""
    own = [encoder for encoder in _own_encoders() if not encoder.startswith("timm-")]  # which timm's have replaced
    pairs = [(each, encoder) for each in ARCHITECTURES.values() if each != "DPT" for encoder in own]
    suited = [f"{each}/{encoder}" for each, encoder in pairs if each not in _unsuited(encoder)]
    return suited + [f"DPT/{vit}" for vit in USUAL_VITS]


def knows(network: str) -> bool:
    """Whether `network` names an architecture and an encoder."""
    try:
        _parts(network)
    except ValueError:
        return False
    return True


def output(network: str) -> str:
    """What a score of `network` belongs to."""
    return "pixel"


def build(
    network: str, *, num_classes: int, image_shape: tuple[int, int, int], pretrained: bool, options: dict[str, Any]
) -> nn.Module:
    """`smp:network`, which takes images of any size unless its encoder, a transformer, is bound to one.

    The network is smp's own behind `AnySize`. An encoder is looked for among smp's own and then among timm's, which smp
    writes `tu-NAME`. `options` are those of smp's constructor; around an encoder of timm's also the encoder's.
    `pretrained` is the encoder's ImageNet weights. Errors as `build_student`.
    """
    student = f"smp:{network}"
    architecture, encoder = _parts(network)
    _check_options(student, options, architecture, encoder)
    given = {"encoder_name": encoder, "classes": num_classes, "in_channels": image_shape[0]}
    given["encoder_weights"] = _weights(student, encoder) if pretrained else None
    given |= _upsampling(architecture, options) | _size(encoder, image_shape)
    return _create(student, architecture, given, options)


@functools.cache
def _any_size(architecture: str) -> type[nn.Module]:
    import segmentation_models_pytorch as smp

    return type(architecture, (AnySize, getattr(smp, architecture)), {"__module__": __name__})


def __getattr__(name: str) -> type[nn.Module]:
    """The classes that `_any_size` makes, by which pickle finds them again."""
    if name in ARCHITECTURES.values():
        return _any_size(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _own_encoders() -> dict[str, Any]:
    from segmentation_models_pytorch.encoders import encoders

    return encoders


def _parts(network: str) -> tuple[str, str]:
    """Architecture and encoder as smp calls them; raises `ValueError` where there is none of this name."""
    name, _, encoder = network.partition("/")
    architecture = ARCHITECTURES.get(name.lower())
    if architecture is None:
        raise ValueError(f"no network is called 'smp:{network}'{nearest(name, ARCHITECTURES.values(), 'smp:')}")
    ends = [*USUAL_VITS] if architecture == "DPT" else [*_own_encoders()]
    if not encoder:
        raise ValueError(f"'smp:{network}' names no encoder; write 'smp:{architecture}/{ends[0]}'")
    if encoder in ends and architecture != "DPT":
        return architecture, encoder
    timms = encoder.removeprefix("tu-")
    if from_timm.knows(timms):
        return architecture, f"tu-{timms}"
    known = [*ends, *from_timm.names()]
    raise ValueError(f"no encoder is called {encoder!r}{nearest(timms, known, f'smp:{architecture}/')}")


def _unsuited(encoder: str) -> tuple[str, ...]:
    """The architectures that smp does not build around an encoder of its own."""
    return next((each for beginning, each in UNSUITED.items() if encoder.startswith(beginning)), ())


def _check_options(student: str, options: dict[str, Any], architecture: str, encoder: str) -> None:
    refuse_settled(student, options, OURS)
    if architecture in _unsuited(encoder):
        others = [each for each in ARCHITECTURES.values() if each not in (*_unsuited(encoder), "DPT")]
        raise ValueError(f"smp builds no {architecture} around {encoder}; it builds {', '.join(others)}")
    legal = _options(architecture)
    for option in options:
        if option not in legal and not encoder.startswith("tu-"):  # smp drops what its own encoders do not take
            raise refused_option(student, option, legal)


def _options(architecture: str) -> list[str]:
    """What may be given to the architecture's class."""
    return free_parameters(_any_size(architecture).__init__, OURS)


def _weights(student: str, encoder: str) -> str | bool:
    """What smp is told to fetch; raises `ValueError` where there are no ImageNet weights."""
    from timm.models import is_model_pretrained

    if encoder.startswith("tu-"):
        found = is_model_pretrained(encoder.removeprefix("tu-"))
    else:
        found = "imagenet" in _own_encoders()[encoder]["pretrained_settings"]
    if not found:
        raise ValueError(f"there are no ImageNet weights for the encoder of {student}, so pretrained must be false")
    return True if encoder.startswith("tu-") else "imagenet"


def _upsampling(architecture: str, options: dict[str, Any]) -> dict[str, int]:
    """What smp leaves to its caller: a head that enlarges as much as an encoder of this depth has made small."""
    if architecture not in ENLARGED or "encoder_depth" not in options:
        return {}
    depth, least = options["encoder_depth"], ENLARGED[architecture]
    return {"upsampling": 2 ** (depth - least)} if depth in (3, 4, 5) else {}


def _size(encoder: str, image_shape: tuple[int, int, int]) -> dict[str, Any]:
    """The image size, filled up to the stride, for encoders that are bound to one."""
    from timm.models import get_pretrained_cfg

    cfg = get_pretrained_cfg(encoder.removeprefix("tu-")) if encoder.startswith("tu-") else None
    if cfg is None or not cfg.fixed_input_size:
        return {}
    return {"img_size": tuple(-(-side // 32) * 32 for side in image_shape[1:])}


def _create(student: str, architecture: str, given: dict[str, Any], options: dict[str, Any]) -> nn.Module:
    freed = FREED if "img_size" in given else ({},)
    for freedom in freed:
        try:
            with quietly(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _any_size(architecture)(**freedom | given | options)
        except Exception as error:
            if isinstance(error, TypeError) and blamed_option(error, freedom):
                continue
            raise _failure(student, architecture, error, given, options) from error
    raise AssertionError("the last way asks for nothing that could be blamed")


def _failure(
    student: str, architecture: str, error: Exception, given: dict[str, Any], options: dict[str, Any]
) -> ValueError:
    blamed = blamed_option(error, options) if isinstance(error, TypeError) else None
    if blamed:
        return refused_option(student, blamed, _options(architecture))
    if given["encoder_weights"]:
        return fetch_failure(student, error)
    extra = f" with {options}" if options else ""
    return ValueError(f"{student} cannot be built{extra} ({reason(error)})")
