"""What the plainest networks have in common."""

from torch import Tensor, nn


class Chain(nn.Module):
    """A network that is its children, run one after another."""

    def forward(self, images: Tensor) -> Tensor:
        x = images
        for child in self.children():
            x = child(x)
        return x
