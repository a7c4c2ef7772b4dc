"""FRSKD's pyramid for segmentation: the student's own layers, the self-teacher above them, and the head of both.

One layer takes maps P_1 to P_L, shallow to deep and equally wide, once down the pyramid and once up again:

    U_L = n(P_L);  U_i = n(P_i + up(U_{i+1}))                    deep to shallow
    O_1 = U_1;     O_i = n'(P_i + U_i + down(O_{i-1}))           shallow to deep

where a node n is a 1x1 depthwise convolution, batch norm and ReLU, up is bilinear and down takes nearest neighbors. It
is EfficientDet's layer (Tan, Pang, Le, 2020, section 3, https://arxiv.org/abs/1911.09070) without its weights, in the
form that the authors of FRSKD use for segmentation (Ji et al., 2021, section 4.2, https://arxiv.org/abs/2103.08273).
Maps are resampled to the size of the map they are added to, so that any image size will do.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .blocks import Map, bilinear


class PyramidLayer(nn.Module):
    """Maps of `channels` channels -> as many maps of the same sizes, each the output of its own `Node`.

    Without `bottom_up` it returns the maps U_i.
    """

    def __init__(self, channels: int, levels: int, *, bottom_up: bool = True) -> None:
        super().__init__()
        self.node_down = nn.ModuleList(Node(channels) for _ in range(levels))
        self.node_up = nn.ModuleList(Node(channels) for _ in range(levels - 1) if bottom_up)

    def forward(self, features: list[Map]) -> list[Map]:
        down = [self.node_down[-1](features[-1])]
        for node, feature in zip(reversed(self.node_down[:-1]), reversed(features[:-1]), strict=True):
            down.insert(0, node(feature + bilinear(down[0], feature)))
        if not len(self.node_up):
            return down
        refined = down[:1]
        for node, feature, above in zip(self.node_up, features[1:], down[1:], strict=True):
            below = F.interpolate(refined[-1], size=feature.shape[2:], mode="nearest")
            refined.append(node(feature + above + below))
        return refined

    def outputs(self) -> list[str]:
        """Names of the submodules whose outputs the layer returns, shallow to deep."""
        if not len(self.node_up):
            return [f"node_down.{i}" for i in range(len(self.node_down))]
        return ["node_down.0", *(f"node_up.{i}" for i in range(len(self.node_up)))]


class Node(nn.Sequential):
    """A weight and a bias for each channel, batch norm, ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__(nn.Conv2d(channels, channels, 1, groups=channels), nn.BatchNorm2d(channels), nn.ReLU())


class PixelHead(nn.Sequential):
    """The dense classifier: a map (b, c, h, w) -> class scores (b, k, h, w); `eps` and `momentum` of its batch norm."""

    def __init__(self, channels: int, num_classes: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__(
            nn.Conv2d(channels, 256, 3, padding=1),
            nn.BatchNorm2d(256, eps, momentum),
            nn.ReLU(),
            nn.Conv2d(256, num_classes, 3, padding=1),
        )


class PyramidTeacher(nn.Module):
    """The paper's self-teacher for segmentation: two further layers, the second without its way up, and a `PixelHead`.

    `forward(features) -> (logits (b, k, h, w), refined)`: scores of the size of the finest map, and one refined map per
    feature map, of the same size. Feature maps come shallow to deep and must have equally many channels, as those of
    the students `efficientdet:` have. `eps` and `momentum` are the head's. Source: Ji et al., 2021, section 4.2.
    """

    def __init__(self, channels: Sequence[int], num_classes: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        if len(set(channels)) != 1:
            raise ValueError(
                f"the pyramid self-teacher takes maps of equally many channels, as efficientdet:d0 has, not"
                f" {list(channels)}"
            )
        width, levels = channels[0], len(channels)
        self.channels = list(channels)  # of the refined maps
        self.layers = nn.ModuleList([PyramidLayer(width, levels), PyramidLayer(width, levels, bottom_up=False)])
        self.head = PixelHead(width, num_classes, eps=eps, momentum=momentum)

    def forward(self, features: list[Map]) -> tuple[Float[Tensor, "b k h w"], list[Map]]:
        refined = features
        for layer in self.layers:
            refined = layer(refined)
        return self.head(refined[0]), refined
