"""A student whose steps take no time, so that a run's pace is that of its input."""

from torch import Tensor, nn


class MeanColour(nn.Module):
    """Class scores from the image's mean over all pixels, normalised as any other network's maps."""

    def __init__(self, num_classes: int, channels: int) -> None:
        super().__init__()
        self.norm, self.fc = nn.BatchNorm1d(channels), nn.Linear(channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.norm(images.mean(dim=(2, 3))))


def mean_colour(num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    return MeanColour(num_classes, image_shape[0])
