"""Class scores for every pixel of an image: of the whole image at once, or of windows that overlap."""

from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

AT_ONCE = 8  # windows that the student sees together: what they take of memory, as in a step of training, is bounded


def score_map(
    student: nn.Module,
    images: Float[Tensor, "b c h w"],
    size: tuple[int, int],
    *,
    window: tuple[int, int] | None = None,
) -> Float[Tensor, "b k p q"]:
    """The student's class scores (logits) for `images`, in float32 at height and width `size`.

    With a `window`, height and width in pixels of `images`, the student sees windows that overlap by a third, and the
    logits are averaged where they overlap: that is linear, so a network that looks at single pixels gives what it gives
    of the whole image. Images smaller than the window are filled up with zeros, the mean colour. Scores are resized
    bilinearly. Raises `ValueError` for a student whose scores do not lie at the pixels of what it is shown.
    """
    scores = _of_whole(student, images) if window is None else _of_windows(student, images, window)
    if scores.shape[2:] == size:
        return scores
    return F.interpolate(scores, size=size, mode="bilinear", align_corners=False)


def _of_whole(student: nn.Module, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
    scores = student(images)
    if scores.ndim != 4 or scores.shape[2:] != images.shape[2:]:
        raise ValueError(
            f"the student's scores of images {tuple(images.shape)} have shape {tuple(scores.shape)}, "
            f"and segmentation needs ({len(images)}, classes, {images.shape[2]}, {images.shape[3]})"
        )
    return scores.float()


def _of_windows(
    student: nn.Module, images: Float[Tensor, "b c h w"], window: tuple[int, int]
) -> Float[Tensor, "b k h w"]:
    height, width = images.shape[2:]
    padded = F.pad(images, (0, max(0, window[1] - width), 0, max(0, window[0] - height)))
    corners = product(*(starts(side, own) for side, own in zip(padded.shape[2:], window, strict=True)))
    places = [(..., slice(top, top + window[0]), slice(left, left + window[1])) for top, left in corners]
    total, seen = None, padded.new_zeros(padded.shape[2:])
    size = max(1, AT_ONCE // max(1, len(images)))
    for group in (places[start : start + size] for start in range(0, len(places), size)):
        found = _of_whole(student, torch.cat([padded[place] for place in group]))
        if total is None:
            total = found.new_zeros(len(images), found.shape[1], *padded.shape[2:])
        for place, scores in zip(group, found.split(len(images)), strict=True):
            total[place] += scores
            seen[place] += 1
    assert total is not None
    return (total / seen)[..., :height, :width]


def starts(side: int, window: int) -> list[int]:
    """Where windows along a side of at least their own length begin: two thirds apart, the last one flush with its end.

    >>> starts(100, 30), starts(30, 30)
    ([0, 20, 40, 60, 70], [0])
    """
    stride = max(1, round(window * 2 / 3))
    return [*range(0, side - window, stride), side - window]
