"""A student whose steps take no time, so that a run is as fast as its input."""

from torch import Tensor, nn


class MeanColor(nn.Module):
    """Class scores from the image's mean over all pixels, after a batch norm."""

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self.norm, self.fc = nn.BatchNorm1d(channels), nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.norm(images.mean(dim=(2, 3))))


def build_mean_color(num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    return MeanColor(num_classes, image_shape[0])
