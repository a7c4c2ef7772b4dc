"""What a library says of the weights that it publishes."""

from collections.abc import Sequence
from typing import NamedTuple


class PublicWeights(NamedTuple):
    """The images that public weights take, and the classes that they know."""

    mean: Sequence[float]  # per channel, of pixels in [0, 1]
    std: Sequence[float]
    size: tuple[int, int] | None = None  # height and width of an image in pixels; None: any
    classes: Sequence[Sequence[str]] | None = None  # the names of each class, in the order of the scores
