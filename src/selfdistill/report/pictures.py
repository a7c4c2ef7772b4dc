"""Pictures inside of the page: what draws them, and how many bytes they may take."""

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from .elements import Element, element

SMALL = 64  # pixels; such pictures are kept as they are, and shown enlarged
SIDE = 256  # pixels of the longer side of others
QUALITY = 80  # of JPEG
BUDGET = 2_000_000  # bytes of all pictures as they stand in the page


class Gallery(NamedTuple):
    """Draws held-out images. Only the commands know data sets and networks, so the page is handed this."""

    name: Callable[[int], str]  # of an image of the scored split
    draw: Callable[[int, Mapping[str, Path]], dict[str, Image.Image]]
    """Pictures by title: the image, and of masks also its label and what the named runs' students say of it."""
    legend: Sequence[tuple[str, tuple[int, int, int]]] = ()  # colors of the classes of masks


class AttentionPictures(NamedTuple):
    """Where networks look in one image."""

    title: str
    rows: dict[str, list[Image.Image]]  # by network: a picture for each level, from shallow to deep
    caption: str


class Attention(NamedTuple):
    """Attention maps of one run's networks for some images."""

    arm: str
    levels: Sequence[str]
    images: Sequence[AttentionPictures]
    distances: Sequence[float] | None  # of the student from its self-teacher at its deepest levels, mean over images
    notes: Sequence[str]


class Budget:
    """Writes pictures into the page until their bytes are used up."""

    def __init__(self, left: int = BUDGET) -> None:
        self.left = left
        self.dropped = 0

    def show(self, picture: Image.Image, description: str, *, side: int = SIDE) -> Element | None:
        """The picture as an element, reduced to `side` pixels; None where there is no room for it."""
        is_small = max(picture.size) <= SMALL
        link = encode(picture if is_small else reduce(picture, side), "PNG" if is_small else "JPEG")
        if len(link) > self.left:
            self.dropped += 1
            return None
        self.left -= len(link)
        width, height = picture.size
        kind = "small" if is_small else None
        return element("img", src=link, alt=description, width=width, height=height, class_=kind, decoding="async")


def reduce(picture: Image.Image, side: int) -> Image.Image:
    """The picture with a longer side of at most `side` pixels."""
    smaller = picture.copy()
    smaller.thumbnail((side, side), Image.Resampling.LANCZOS)
    return smaller


def encode(picture: Image.Image, kind: str) -> str:
    """The picture as a link that holds it: "PNG" or "JPEG"."""
    file = io.BytesIO()
    picture.convert("RGB").save(file, kind, optimize=True, **({"quality": QUALITY} if kind == "JPEG" else {}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
