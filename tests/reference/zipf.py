"""Zipf's label smoothing in plain Python, one position, class and row at a time."""

import math

import numpy as np

from reference.frskd import log_softmax


def dense_scores(feature, kernel, bias):
    """A linear classifier at every position: (b, c, h, w) -> (b, k, h, w)."""
    out = np.empty((len(feature), len(kernel), *feature.shape[2:]))
    for b, h, w in np.ndindex(len(feature), *feature.shape[2:]):
        out[b, :, h, w] = kernel.reshape(len(kernel), -1) @ feature[b, :, h, w] + bias
    return out


def twice_as_large(maps):
    """Bilinear: a new pixel is three quarters of the old one that it lies in and a quarter of the nearest other."""
    for axis in (2, 3):
        length = maps.shape[axis]
        lines = []
        for i in range(2 * length):
            here, near = i // 2, i // 2 + (1 if i % 2 else -1)
            near = min(max(near, 0), length - 1)
            lines.append(0.75 * maps.take(here, axis) + 0.25 * maps.take(near, axis))
        maps = np.stack(lines, axis)
    return maps


def vote(dense):
    """How many positions of each row a class wins, for one or more maps of scores."""
    counts = [[0] * dense[0].shape[1] for _ in dense[0]]
    for scores in dense:
        for b, h, w in np.ndindex(len(scores), *scores.shape[2:]):
            counts[b][int(np.argmax(scores[b, :, h, w]))] += 1
    return counts


def soft_label(counts, label, among):
    """By class, for one row; a class is ranked behind those with more votes."""
    ranked = [k for k in range(len(counts)) if among == "all" or k != label]
    weights = {
        k: 1 / (1 + sum(counts[other] > counts[k] for other in ranked)) for k in range(len(counts)) if k != label
    }
    return {k: weight / sum(weights.values()) for k, weight in weights.items()}


def zipf_loss(logits, counts, target, among):
    """KL(soft label || the student's scores without the true class), mean over rows."""
    total = 0.0
    for row, votes, label in zip(logits, counts, target, strict=True):
        kept = [k for k in range(len(row)) if k != label]
        logs = dict(zip(kept, log_softmax([row[k] for k in kept]), strict=True))
        total += sum(q * (math.log(q) - logs[k]) for k, q in soft_label(votes, label, among).items())
    return total / len(logits)
