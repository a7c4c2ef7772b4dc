"""`efficientdet:d0|d1|d2`: the segmentation network of FRSKD's paper, an EfficientNet under a feature pyramid.

Ji et al., 2021, section 4.2, https://arxiv.org/abs/2103.08273, as the authors' code has it, after EfficientDet: Tan,
Pang, Le, 2020, https://arxiv.org/abs/1911.09070
"""

from typing import Any

import timm
from jaxtyping import Float
from torch import Tensor, nn

from ..errors import did_you_mean
from ..modules.blocks import bilinear
from ..modules.pyramid import PixelHead, PyramidLayer
from .errors import build_error, list_options, refuse_unknown

NETWORKS = {"d0": ("efficientnet_b0", 64), "d1": ("efficientnet_b1", 88), "d2": ("efficientnet_b2", 112)}
FIXED = ("network", "in_channels", "num_classes", "pretrained")
LEVELS = 6  # maps of the pyramid, P2 to P7: at 1/4 to 1/128 of the image's size
LAYERS = 3
AUTHORS = {"eps": 1e-4, "momentum": 0.997}  # of the batch norms beside the EfficientNet
AUTHORS_BACKBONE = {"eps": 1e-3, "momentum": 0.01}


def list_names() -> list[str]:
    """The three sizes."""
    return list(NETWORKS)


def knows(network: str) -> bool:
    """Whether `build` takes `network`."""
    return network in NETWORKS


def output(network: str) -> str:
    """What a score of `network` belongs to."""
    return "pixel"


def build(
    network: str, *, num_classes: int, image_shape: tuple[int, int, int], pretrained: bool, options: dict[str, Any]
) -> nn.Module:
    """`efficientdet:network`; `pretrained` takes timm's weights for its EfficientNet. Errors as `build_student`."""
    student = f"efficientdet:{network}"
    if not knows(network):
        raise ValueError(f"no network is called {student!r}{did_you_mean(network, NETWORKS, 'efficientdet:')}")
    refuse_unknown(student, options, list_options(EfficientDet, FIXED))
    try:
        return EfficientDet(
            network, in_channels=image_shape[0], num_classes=num_classes, pretrained=pretrained, **options
        )
    except Exception as error:
        raise build_error(student, error, options, pretrained=pretrained) from error


class EfficientDet(nn.Module):
    """Images (b, c, h, w) of any height and width -> class scores (b, k, h, w).

    The EfficientNet's maps P2 to P5 and two more, P6 and P7, which strided convolutions make of P5; a feature pyramid
    over P2 to P5, deep to shallow; three `PyramidLayer`s; a head on the finest map, whose scores are enlarged. The six
    maps of the last layer are the network's taps.

    `authors` builds what the authors' code trains, for exact comparison. Its EfficientNet is TensorFlow's: strided
    convolutions pad images of even size below and to the right alone, batch norms have an `eps` of 1e-3 and a momentum
    of 0.01, and pretrained weights are those of TensorFlow with AutoAugment. Three more differences are taken for
    oversights: the stem has no activation; the batch norms of convolutions and head have a momentum of 0.997, so that
    they remember the last batch alone; and it carries two layers that are not used, kept frozen here, so that the
    parameter counts agree. By default padding is symmetric and every batch norm is as PyTorch has it: 0.003, which
    0.997 may have been meant to say, would take a thousand steps before the network could be evaluated.

    `drop_path_rate` drops the EfficientNet's residual branches; the authors drop none.
    """

    def __init__(
        self,
        network: str,
        *,
        in_channels: int,
        num_classes: int,
        pretrained: bool = False,
        authors: bool = False,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        encoder, width = NETWORKS[network]
        norm = AUTHORS if authors else {}
        if authors:
            encoder = f"tf_{encoder}.aa_in1k"
        self.backbone = Backbone(encoder, pretrained=pretrained, in_chans=in_channels, drop_path_rate=drop_path_rate)
        if authors:
            self.backbone.bn1.act = nn.Identity()
            for module in self.backbone.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eps, module.momentum = AUTHORS_BACKBONE["eps"], AUTHORS_BACKBONE["momentum"]
        deepest = self.backbone.channels[-1]
        self.conv6 = conv_bn_relu(deepest, width, 3, stride=2, **norm)
        self.conv7 = conv_bn_relu(width, width, 3, stride=2, **norm)
        self.lateral = nn.ModuleList(conv_bn_relu(channels, width, 1, **norm) for channels in self.backbone.channels)
        if authors:
            self.smooth = nn.ModuleList(conv_bn_relu(width, width, 3, **norm) for _ in range(2)).requires_grad_(False)
        self.pyramid = nn.ModuleList(PyramidLayer(width, LEVELS) for _ in range(LAYERS))
        self.head = PixelHead(width, num_classes, **norm)
        self.pyramid_norm = norm  # of the head, and of the head of a self-teacher that continues the pyramid
        self.tap_names = [f"pyramid.{LAYERS - 1}.{name}" for name in self.pyramid[-1].outputs()]

    def forward(self, images: Float[Tensor, "b _c h w"]) -> Float[Tensor, "b k h w"]:
        features = self.backbone(images)
        deep = [self.conv6(features[-1])]
        deep.append(self.conv7(deep[0]))
        maps = [lateral(feature) for lateral, feature in zip(self.lateral, features, strict=True)]
        for i in reversed(range(len(maps) - 1)):
            maps[i] = maps[i] + bilinear(maps[i + 1], maps[i])
        maps += deep
        for layer in self.pyramid:
            maps = layer(maps)
        return bilinear(self.head(maps[0]), images)


class Backbone(nn.Module):
    """timm's EfficientNet up to its last block: images -> maps at 1/4, 1/8, 1/16 and 1/32 of their size.

    The first three are the outputs of the first block at each size, as in the authors' code; the fourth is that of the
    last block.
    """

    def __init__(self, network: str, **options: Any) -> None:
        super().__init__()
        net = timm.create_model(network, num_classes=0, **options)
        self.conv_stem, self.bn1, self.blocks = net.conv_stem, net.bn1, net.blocks
        ends = self.blocks[1][0], self.blocks[2][0], self.blocks[3][0], self.blocks[-1][-1]
        self.channels = [block.bn3.num_features for block in ends]

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.bn1(self.conv_stem(images))
        maps = []
        for i, stage in enumerate(self.blocks):
            for j, block in enumerate(stage):
                x = block(x)
                if j == 0 and i in (1, 2, 3):
                    maps.append(x)
        return [*maps, x]


def conv_bn_relu(
    in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, eps: float = 1e-5, momentum: float = 0.1
) -> nn.Sequential:
    """Convolution with a bias, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2),
        nn.BatchNorm2d(out_channels, eps, momentum),
        nn.ReLU(),
    )
