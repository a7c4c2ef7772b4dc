"""Class scores for every pixel, from the whole image at once or from overlapping windows."""

from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

WINDOWS_AT_ONCE = 8  # windows per forward pass, to bound memory


def score_map(
    student: nn.Module,
    images: Float[Tensor, "b c h w"],
    size: tuple[int, int],
    *,
    window: tuple[int, int] | None = None,
) -> Float[Tensor, "b k p q"]:
    """The student's class scores (logits) for `images`, in float32 at height and width `size`.

    With a `window`, height and width in pixels of `images`, the student sees windows that overlap by a third, and the
    logits are averaged where they overlap. The average is linear, so a network of 1x1 convolutions gives the same
    result as on the whole image. Images smaller than the window are padded with zeros, the mean color. Scores are
    resized bilinearly. Raises `ValueError` for a student whose scores do not have the height and width of its input.
    """
    scores = _score_whole(student, images) if window is None else _score_windows(student, images, window)
    if scores.shape[2:] == size:
        return scores
    return F.interpolate(scores, size=size, mode="bilinear", align_corners=False)


def _score_whole(student: nn.Module, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k h w"]:
    scores = student(images)
    if scores.ndim != 4 or scores.shape[2:] != images.shape[2:]:
        raise ValueError(
            f"the student's scores of images {tuple(images.shape)} have shape {tuple(scores.shape)}, "
            f"and segmentation needs ({len(images)}, classes, {images.shape[2]}, {images.shape[3]})"
        )
    return scores.float()


def _score_windows(
    student: nn.Module, images: Float[Tensor, "b c h w"], window: tuple[int, int]
) -> Float[Tensor, "b k h w"]:
    height, width = images.shape[2:]
    padded = F.pad(images, (0, max(0, window[1] - width), 0, max(0, window[0] - height)))
    corners = product(
        *(list_window_starts(side, length) for side, length in zip(padded.shape[2:], window, strict=True))
    )
    slices = [(..., slice(top, top + window[0]), slice(left, left + window[1])) for top, left in corners]
    total, windows_seen = None, padded.new_zeros(padded.shape[2:])
    group_size = max(1, WINDOWS_AT_ONCE // max(1, len(images)))
    for group in (slices[start : start + group_size] for start in range(0, len(slices), group_size)):
        group_scores = _score_whole(student, torch.cat([padded[where] for where in group]))
        if total is None:
            total = group_scores.new_zeros(len(images), group_scores.shape[1], *padded.shape[2:])
        for where, scores in zip(group, group_scores.split(len(images)), strict=True):
            total[where] += scores
            windows_seen[where] += 1
    assert total is not None
    return (total / windows_seen)[..., :height, :width]


def list_window_starts(side: int, window: int) -> list[int]:
    """The starts of windows along a side: two thirds of a window apart, the last one flush with the end.

    >>> list_window_starts(100, 30), list_window_starts(30, 30)
    ([0, 20, 40, 60, 70], [0])
    """
    stride = max(1, round(window * 2 / 3))
    return [*range(0, side - window, stride), side - window]
