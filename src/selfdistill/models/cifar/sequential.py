"""The base of the networks in this folder."""

from torch import Tensor, nn

from ...features.pooling import GlobalAveragePool


class SequentialClassifier(nn.Module):
    """A classifier that runs its children one after another."""

    def add_head(self, channels: int, num_classes: int) -> None:
        """Adds global average pooling and a linear classifier as the last children."""
        self.pool = GlobalAveragePool()
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(channels, num_classes)
        self.num_features = channels

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for child in self.children():
            x = child(x)
        return x
