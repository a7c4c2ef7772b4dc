"""TESKD's and DTSKD's branches and objectives in numpy and float64, one position, row or class at a time.

Weights come by name, as in `reference.frskd`.
"""

import math

import numpy as np

from .frskd import batch_norm, cross_entropy, log_softmax, point, rectified, soft_label_loss


def stretched(length, wanted):
    """For each of `wanted` places on a line of `length`, ends on ends: the two around it, and the second's share."""
    for place in range(wanted):
        where = place * (length - 1) / (wanted - 1) if wanted > 1 else 0.0
        low = min(int(where), length - 1)
        yield low, min(low + 1, length - 1), where - low


def enlarged(maps, size):
    """Bilinear resampling, corners on corners."""
    out = np.empty((*maps.shape[:2], *size))
    for row, (top, bottom, down) in enumerate(stretched(maps.shape[2], size[0])):
        for column, (left, right, across) in enumerate(stretched(maps.shape[3], size[1])):
            upper = (1 - across) * maps[:, :, top, left] + across * maps[:, :, top, right]
            lower = (1 - across) * maps[:, :, bottom, left] + across * maps[:, :, bottom, right]
            out[:, :, row, column] = (1 - down) * upper + down * lower
    return out


def top_down(features, weights, *, top_lateral):
    """One fused map per feature map but the deepest, shallow to deep."""
    above = point(features[-1], weights / "top") if top_lateral else features[-1]
    fused = []
    for i in reversed(range(len(features) - 1)):
        up = point(enlarged(above, features[i].shape[2:]), weights / f"ups.{i}")
        lateral = point(features[i], weights / f"laterals.{i}")
        above = point(np.concatenate([up + lateral, up], axis=1), weights / f"fuses.{i}")
        fused.append(above)
    return fused[::-1]


def linear(pooled, weights):
    return pooled @ weights["weight"].T + weights["bias"]


def branch(feature, weights, patch):
    """Scores and pooled vector: a convolution over patches of `patch`, a 1x1 convolution, pooling, a classifier."""
    kernel = (weights / "layers.0")["weight"]
    rows, columns = feature.shape[2] // patch[0], feature.shape[3] // patch[1]
    cut = np.empty((len(feature), len(kernel), rows, columns))
    for i in range(rows):
        for j in range(columns):
            window = feature[:, :, patch[0] * i : patch[0] * (i + 1), patch[1] * j : patch[1] * (j + 1)]
            cut[:, :, i, j] = np.einsum("bchw,dchw->bd", window, kernel)
    maps = rectified(batch_norm(cut, weights / "layers.1"))
    maps = np.einsum("bchw,dc->bdhw", maps, (weights / "layers.3")["weight"][:, :, 0, 0])
    pooled = rectified(batch_norm(maps, weights / "layers.4")).mean(axis=(2, 3))
    return linear(pooled, weights / "fc"), pooled


def active_difference(own, aims):
    """Squared differences where either number is positive, summed; mean over rows. Rows are as long as each other."""
    total = 0.0
    for row, aim_row in zip(own, aims, strict=True):
        for value, aim in zip(row, aim_row, strict=True):
            if value > 0 or aim > 0:
                total += (value - aim) ** 2
    return total / len(own)


def teskd(logits, deepest, branches, target, *, ce_weight, kd_weight, feature_weight, temperature):
    """The terms of TESKD; `branches` are pairs of scores and pooled vector."""
    pooled = deepest.mean(axis=(2, 3))
    return {
        "task": ce_weight * cross_entropy(logits, target),
        "branches": ce_weight * sum(cross_entropy(scores, target) for scores, _ in branches),
        "kd": kd_weight * sum(soft_label_loss(scores, logits, temperature) for scores, _ in branches),
        "feature": feature_weight and feature_weight * sum(active_difference(own, pooled) for _, own in branches),
    }


class History:
    """What every head said of every image when it saw it last, as lists of probabilities."""

    def __init__(self):
        self.said = {}

    def target(self, head, row, label, classes, share):
        """A share of the label, and for the rest what the head said; the label where it has said nothing."""
        label = [float(c == label) for c in range(classes)]
        past = self.said.get((head, row), label)
        return [share * one + (1 - share) * other for one, other in zip(label, past, strict=True)]

    def write(self, head, row, scores):
        self.said[head, row] = [math.exp(log) for log in log_softmax(scores)]


def dtskd(heads, rows, target, history, progress, *, first, last, ce, kd, backbone, branch, temperature):
    """The terms of one step of DTSKD; `heads` are the scores of the student and of the branches. Writes the history."""
    share = last + (first - last) * 0.5 * (1 + math.cos(math.pi * progress))
    classes = heads[0].shape[1]
    own = []
    for number, logits in enumerate(heads):
        aims = [history.target(number, row, y, classes, share) for row, y in zip(rows, target, strict=True)]
        own.append(cross_entropy(logits, aims))
        for row, scores in zip(rows, logits, strict=True):
            history.write(number, row, scores)
    return {
        "task": ce * backbone * own[0],
        "branches": ce * branch * sum(own[1:]),
        "kd": kd * sum(soft_label_loss(logits, heads[0], temperature) for logits in heads[1:]),
    }
