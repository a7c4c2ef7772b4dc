"""A network that is shown images as it knows them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue in gray, as Pillow converts them


class Adapted(nn.Module):
    """A network that is shown images as it knows them, and gives the scores of some of its classes.

    Images come normalized by `mean` and `std`; it knows them by `own_mean` and `own_std`, which may have another number
    of channels (gray or colors), and at another `size`. Scores of pixels come back at the size of the images.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        own_mean: Sequence[float],
        own_std: Sequence[float],
        size: tuple[int, int] | None = None,
        classes: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.net, self.size = net, size
        given = {"mean": mean, "std": std, "own_mean": own_mean, "own_std": own_std, "luma": LUMA}
        for name, values in given.items():
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1), persistent=False)
        index = None if classes is None else torch.tensor(classes)
        self.register_buffer("classes", index, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        pixels = images * self.std + self.mean
        channels, own_channels = pixels.shape[1], self.own_mean.shape[1]
        if channels == 3 and own_channels == 1:
            pixels = (pixels * self.luma).sum(dim=1, keepdim=True)
        shown = (pixels.expand(-1, own_channels, -1, -1) - self.own_mean) / self.own_std
        if self.size is not None and self.size != shown.shape[2:]:
            shown = F.interpolate(shown, size=self.size, mode="bilinear", antialias=True)
        scores = self.net(shown)
        if scores.ndim == 4 and scores.shape[2:] != images.shape[2:]:
            scores = F.interpolate(scores, size=images.shape[2:], mode="bilinear")
        return scores if self.classes is None else scores[:, self.classes]
