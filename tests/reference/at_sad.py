"""Attention transfer and self attention distillation in numpy and float64, row by row and position by position."""

import math

import numpy as np

from reference.frskd import attention_map
from reference.tfd import pooled


def at_loss(features, teacher_features):
    """Sum over levels of the mean over rows and positions; the last teacher map belongs to the last map."""
    total = 0.0
    for back in range(1, len(features) + 1):
        own, aim = features[-back], teacher_features[max(len(teacher_features) - back, 0)]
        size = tuple(np.minimum(own.shape[2:], aim.shape[2:]))
        rows = zip(pooled(own, size), pooled(aim, size), strict=True)
        total += np.mean([(attention_map(one) - attention_map(other)) ** 2 for one, other in rows])
    return total


def enlarged(grid, size):
    """Bilinear, with cell centres half a cell from the border."""
    out = np.empty(size)
    for place in np.ndindex(*size):
        corners = []
        for axis in range(2):
            at = (place[axis] + 0.5) * grid.shape[axis] / size[axis] - 0.5
            at = min(max(at, 0.0), grid.shape[axis] - 1.0)
            low = math.floor(at)
            corners.append([(low, low + 1 - at), (min(low + 1, grid.shape[axis] - 1), at - low)])
        out[place] = sum(a * b * grid[i, j] for i, a in corners[0] for j, b in corners[1])
    return out


def spread(grid):
    weights = np.exp(grid - grid.max())
    return weights / weights.sum()


def sad_loss(features, reduction):
    """Sum over successive maps; of the squares over positions the sum or the mean, then the mean over rows."""
    total = 0.0
    for shallow, deep in zip(features[:-1], features[1:], strict=True):
        for own, aim in zip(shallow, deep, strict=True):
            aim = enlarged((aim**2).sum(axis=0), own.shape[1:])
            squares = (spread((own**2).sum(axis=0)) - spread(aim)) ** 2
            total += (squares.sum() if reduction == "sum" else squares.mean()) / len(shallow)
    return total
