"""Students of a few layers. Those of `Blocks` compute the same however a batch is cut: no batch norm, in float64."""

from torch import Tensor, nn


class Blocks(nn.Module):
    """Three convolutions, whose outputs are the feature maps; scores of images or, for `pixels`, of every pixel."""

    def __init__(self, num_classes: int, image_shape: tuple[int, int, int], *, pixels: bool) -> None:
        super().__init__()
        widths = (image_shape[0], 6, 8, 10)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, d, 3, 2, 1), nn.Tanh()) for c, d in zip(widths, widths[1:], strict=False)
        )
        self.head = nn.Conv2d(widths[-1], num_classes, 1)
        self.pixels = pixels
        self.double()

    def forward(self, images: Tensor) -> Tensor:
        maps = images.double()
        for block in self.blocks:
            maps = block(maps)
        scores = self.head(maps)
        if not self.pixels:
            return scores.mean(dim=(2, 3))
        return nn.functional.interpolate(scores, size=images.shape[2:], mode="bilinear")


def classifier(num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    return Blocks(num_classes, image_shape, pixels=False)


def segmenter(num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    return Blocks(num_classes, image_shape, pixels=True)


class Grid(nn.Module):
    """Scores every pixel by what lies in its cell of a grid of three by three."""

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(channels, num_classes, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(3)

    def forward(self, images: Tensor) -> Tensor:
        scores = self.head(images)
        return scores + nn.functional.interpolate(self.pool(scores), size=images.shape[2:], mode="bilinear")


def grid_segmenter(num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    return Grid(num_classes, image_shape[0])


class Stages(nn.Sequential):
    """A classifier of three stages, each a convolution, a batch norm and a ReLU."""

    def __init__(self, num_classes: int, image_shape: tuple[int, int, int]) -> None:
        widths = (image_shape[0], 8, 12, 16)
        stages = [
            nn.Sequential(nn.Conv2d(c, d, 3, stride, 1, bias=False), nn.BatchNorm2d(d), nn.ReLU())
            for c, d, stride in zip(widths, widths[1:], (1, 2, 2), strict=False)
        ]
        super().__init__(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], num_classes))
