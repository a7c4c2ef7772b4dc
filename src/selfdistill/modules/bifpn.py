"""FRSKD's self-teachers: a bidirectional feature pyramid over the student's maps, and a classifier on what it refines.

Ji et al., 2021, section 3.1, https://arxiv.org/abs/2103.08273. The pyramid and its weighted fusion are EfficientDet's:
Tan, Pang, Le, 2020, section 3, https://arxiv.org/abs/1911.09070

Every map that one module hands to the next is after its ReLU. Only the separable convolutions of a node end before it,
because the overhaul loss needs the refined maps before their ReLU.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .blocks import ConvBNReLU, Identity, Map, separable
from .heads import PYRAMID_CLASSIFIERS
from .recompute import pool, recompute_maps, rectify


class SelfTeacher(nn.Module):
    """A stack of `BiFPNLayer`s and a classifier.

    `forward(features) -> (logits, refined)`: one refined map per feature map, of the same size; after its ReLU, or
    before it with `preactivation`. Feature maps come shallow to deep and may have any sizes and channels. With `output`
    "image" a linear layer scores the pooled deepest map, (b, k); with "pixel" all refined maps together are scored at
    the size of the shallowest, (b, k, h, w). `rectified` says which feature maps are after a ReLU already; the others
    are rectified first.
    """

    def __init__(
        self,
        layers: Sequence["BiFPNLayer"],
        num_classes: int,
        *,
        preactivation: bool = False,
        output: str = "image",
        rectified: Sequence[bool] = (),
    ) -> None:
        super().__init__()
        self.passes = nn.ModuleList(layers)
        self.channels = layers[-1].widths  # of the refined maps
        self.preactivation = preactivation
        self.rectified = tuple(rectified)
        self.fc = PYRAMID_CLASSIFIERS[output](self.channels, num_classes)

    def forward(self, features: list[Map]) -> tuple[Float[Tensor, "b k *pos"], list[Map]]:
        rectified = self.rectified or [False] * len(features)
        activated = [f if known else F.relu(f) for f, known in zip(features, rectified, strict=True)]
        with recompute_maps():
            for layer in self.passes:
                refined, activated = layer(activated, preactivation=self.preactivation)
            return self.fc(activated), refined

    def norms(self) -> list[nn.BatchNorm2d]:
        """The last batch norm before each refined map, shallow to deep."""
        last = self.passes[-1]
        if not len(last.node_up):  # a single level: the refined map is the lateral of the first layer
            return [self.passes[0].lateral_down[0][1]]
        return [last.node_down[0][-1], *(node[-1] for node in last.node_up)]


class BiFPNc(SelfTeacher):
    """The paper's self-teacher: each level is `width` times as wide as the student's map, thin for a thin student.

    `depth`: depthwise-separable convolutions per node. Source: Ji et al., 2021, section 3.1 and table 6.
    """

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
        *,
        width: int = 2,
        depth: int = 2,
        preactivation: bool = False,
        output: str = "image",
        rectified: Sequence[bool] = (),
    ) -> None:
        widths = [width * c for c in channels]
        layer = BiFPNLayer(channels, widths, depth=depth, laterals=True, resample_widths=True)
        super().__init__([layer], num_classes, preactivation=preactivation, output=output, rectified=rectified)


class BiFPN(SelfTeacher):
    """EfficientDet's pyramid: every level has `num_channels`, `repeat` layers, resampling without convolutions."""

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
        *,
        num_channels: int = 256,
        depth: int = 2,
        repeat: int = 1,
        preactivation: bool = False,
        output: str = "image",
        rectified: Sequence[bool] = (),
    ) -> None:
        widths = [num_channels] * len(channels)
        layers = [BiFPNLayer(channels, widths, depth=depth, laterals=True, resample_widths=False)]
        for _ in range(repeat - 1):
            layers.append(BiFPNLayer(widths, widths, depth=depth, laterals=False, resample_widths=False))
        super().__init__(layers, num_classes, preactivation=preactivation, output=output, rectified=rectified)


class BiFPNLayer(nn.Module):
    """Once down the pyramid and once up again: maps of `channels` after their ReLU -> maps of `widths`.

    `forward` returns the maps T_i twice: before their ReLU if `preactivation` is set, and after it.

        P_L = lateral(F_L);  P_i = node(lateral(F_i) + up(P_{i+1}))                       deep to shallow
        T_1 = P_1;           T_i = node(lateral'(F_i) + P_i + down(T_{i-1}))              shallow to deep, no P_L in T_L

    where + is a mean weighted by `Fusion`. The way up reads the features through laterals of its own, as the authors'
    code does.
    """

    def __init__(
        self, channels: Sequence[int], widths: Sequence[int], *, depth: int, laterals: bool, resample_widths: bool
    ) -> None:
        super().__init__()
        deepest = len(channels) - 1
        self.widths = list(widths)
        steps = list(zip(widths[1:], widths, strict=False))  # (deeper, shallower)
        self.lateral_down = nn.ModuleList(map(ConvBNReLU if laterals else Identity, channels, widths))
        self.lateral_up = nn.ModuleList(map(ConvBNReLU, channels[1:], widths[1:]))
        resample = ConvBNReLU if resample_widths else Identity
        self.point_down = nn.ModuleList(resample(deep, shallow) for deep, shallow in steps)
        self.point_up = nn.ModuleList(resample(shallow, deep) for deep, shallow in steps)
        self.fuse_down = nn.ModuleList(Fusion(2) for _ in steps)
        self.fuse_up = nn.ModuleList(Fusion(2 if i == deepest else 3) for i in range(1, len(channels)))
        self.node_down = nn.ModuleList(separable(width, width, repeat=depth) for width in widths[:-1])
        self.node_up = nn.ModuleList(separable(width, width, repeat=depth) for width in widths[1:])

    def forward(self, features: list[Map], *, preactivation: bool = False) -> tuple[list[Map], list[Map]]:
        deepest = len(features) - 1
        raw = self.lateral_down[-1](features[-1])
        down = [raw]
        for i in reversed(range(deepest)):
            lateral_weight, deeper_weight = self.fuse_down[i]()
            lateral = self.lateral_down[i](features[i], lateral_weight)
            raw = self.node_down[i](lateral + self.point_down[i](down[0], deeper_weight, like=lateral))
            down.insert(0, rectify(raw, keep=preactivation))
        refined, activated = [raw], down[:1]
        for i in range(1, deepest + 1):
            *weights, shallower_weight = self.fuse_up[i - 1]()
            fused = self.lateral_up[i - 1](features[i], weights[0])
            if i < deepest:
                fused = torch.addcmul(fused, down[i], weights[1])
            fused = fused + self.point_up[i - 1](shrink(activated[-1], features[i]), shallower_weight)
            refined.append(self.node_up[i - 1](fused))
            activated.append(rectify(refined[-1], keep=preactivation))
        return refined if preactivation else activated, activated


class Fusion(nn.Module):
    """The weights of a mean of maps: learned, kept positive by a ReLU, equal at the start, with a sum of about 1.

    A weight that reaches 0 gets no gradient any more and stays there.
    Source: Tan, Pang, Le, 2020, section 3.3, "fast normalized fusion", https://arxiv.org/abs/1911.09070
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(inputs))

    def forward(self) -> tuple[Float[Tensor, ""], ...]:
        weight = F.relu(self.weight)
        return (weight / (weight.sum() + 1e-6)).unbind()


def shrink(feature: Float[Tensor, "b c _h _w"], like: Float[Tensor, "b d h w"]) -> Float[Tensor, "b c h w"]:
    """Max pooling to the height and width of `like`.

    Along an axis that halves, rounding up, windows are 3 wide at stride 2 and lie as TensorFlow's "same" has them. An
    axis that keeps its length is left alone. Any other ratio takes adaptive windows.
    """
    before, after = feature.shape[2:], like.shape[2:]
    if before == after:
        return feature
    if any(new not in (old, -(-old // 2)) for old, new in zip(before, after, strict=True)):
        return pool(F.adaptive_max_pool2d, feature, after)
    kernel = [1 if old == new else 3 for old, new in zip(before, after, strict=True)]
    stride = [1 if old == new else 2 for old, new in zip(before, after, strict=True)]
    margin = [0 if old == new else old % 2 for old, new in zip(before, after, strict=True)]  # before the first position
    return pool(F.max_pool2d, feature, kernel, stride, margin, ceil_mode=True)
