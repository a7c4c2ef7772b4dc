"""Boundary F-score: agreement of the class outlines in two label maps."""

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

TOLERANCE = 0.0075  # maximum distance of matching boundary pixels, as a share of the image diagonal
NO_BOUNDARY = -1  # value on a boundary map
DISC_ROWS = 4  # rows of the disc that are searched together


def boundary_f(
    predicted: Int64[Tensor, "h w"], target: Int64[Tensor, "h w"], labeled: Bool[Tensor, "h w"], *, num_classes: int
) -> Float[Tensor, ""]:
    """F-score of the outlines in one image, mean over its classes, in [0, 1].

    Precision is the share of a class's predicted boundary pixels that have a boundary pixel of this class in the labels
    within a Euclidean distance of `TOLERANCE` image diagonals, but at least one pixel. Recall swaps labels and
    prediction. A class counts if it has a boundary in the labels or the prediction; NaN if no class has one.
    Pixels that are not `labeled` are not boundaries and do not make other pixels boundaries.
    Source: Csurka, Larlus, Perronnin, BMVC 2013, https://dx.doi.org/10.5244/C.27.32
    """
    radius = max(1.0, TOLERANCE * math.hypot(*target.shape))
    predicted_boundaries, target_boundaries = (
        _find_boundaries(m.where(labeled, NO_BOUNDARY), margin=int(radius)) for m in (predicted, target)
    )
    widths = _compute_half_widths(radius).to(target.device)
    precision = _compute_matched_shares(predicted_boundaries, target_boundaries, widths, num_classes)
    recall = _compute_matched_shares(target_boundaries, predicted_boundaries, widths, num_classes)
    f = 2 * precision * recall / (precision + recall).clamp(min=torch.finfo(torch.float64).tiny)
    # A share of nothing is NaN. The class scores 0 if only one side has a boundary, and is left out if neither has one.
    return f.where(precision.isnan() == recall.isnan(), 0.0).nanmean()


def _compute_half_widths(radius: float) -> Int64[Tensor, " n"]:
    """The half width of a disc in pixels, for each of its rows from top to bottom."""
    offsets = torch.arange(-int(radius), int(radius) + 1)
    inside = torch.cartesian_prod(offsets, offsets).double().norm(dim=1) <= radius
    return inside.view(len(offsets), -1).sum(dim=1) // 2


def _find_boundaries(classes: Int64[Tensor, "h w"], *, margin: int) -> Int64[Tensor, "p q"]:
    """The class of every pixel beside one of another class, NO_BOUNDARY elsewhere and in the added `margin`.

    Neighbors share a side. NO_BOUNDARY in `classes` and positions outside of the image do not count as another class.
    """
    edge = torch.zeros_like(classes, dtype=torch.bool)
    for one, other in (((slice(1, None), ...), (slice(-1), ...)), ((..., slice(1, None)), (..., slice(-1)))):
        differ = (classes[one] != classes[other]) & (classes[one] != NO_BOUNDARY) & (classes[other] != NO_BOUNDARY)
        edge[one] |= differ
        edge[other] |= differ
    return nn.functional.pad(classes.where(edge, NO_BOUNDARY), [margin] * 4, value=NO_BOUNDARY)


def _compute_matched_shares(
    searched: Int64[Tensor, "p q"], other: Int64[Tensor, "p q"], half_widths: Int64[Tensor, " n"], num_classes: int
) -> Float[Tensor, " k"]:
    """For each class, the share of its boundary pixels in `searched` with one in `other` in the disc around them.

    Pixels are numbered by class, row and column. A row of the disc holds a pixel of `other` where the next number from
    its left end on is no larger than its right end. Pixels that have a match in the rows searched first are not
    searched again. NaN for a class without a boundary in `searched`.
    """
    size = searched.numel()
    unmatched, candidates = _number_pixels(searched), _number_pixels(other)
    candidates = nn.functional.pad(candidates, (0, 1), value=(num_classes + 1) * size)  # beyond any row of a disc
    total = torch.bincount(unmatched // size, minlength=num_classes)
    rows = torch.arange(len(half_widths), device=searched.device) - len(half_widths) // 2
    for nearest_rows in rows.abs().argsort().split(DISC_ROWS):
        left = unmatched[:, None] + rows[nearest_rows] * searched.shape[1] - half_widths[nearest_rows]
        near = candidates[torch.searchsorted(candidates, left)] <= left + 2 * half_widths[nearest_rows]
        unmatched = unmatched[~near.any(dim=1)]
    return 1 - torch.bincount(unmatched // size, minlength=num_classes).double() / total


def _number_pixels(boundaries: Int64[Tensor, "p q"]) -> Int64[Tensor, " n"]:
    """A number for each boundary pixel, ascending: its class times the size of the map, plus its index in the map."""
    classes = boundaries.flatten()
    indices = (classes != NO_BOUNDARY).nonzero()[:, 0]
    return (classes[indices] * len(classes) + indices).sort().values
