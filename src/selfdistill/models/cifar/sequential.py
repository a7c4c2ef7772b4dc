"""What the plainest networks have in common."""

from torch import Tensor, nn


class Chain(nn.Module):
    """A network that is its children, run one after another."""

    def add_head(self, channels: int, num_classes: int) -> None:
        """Ends the chain in global average pooling and a linear classifier."""
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(channels, num_classes)
        self.num_features = channels

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for child in self.children():
            x = child(x)
        return x
