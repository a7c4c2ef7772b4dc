"""The scores of a segmenter, pixel by pixel in numpy, from their definitions."""

import math

import numpy as np


def slow_dense_scores(logits: np.ndarray, target: np.ndarray, void: int = -100, bins: int = 15) -> dict:
    """Of scores (b, k, h, w) and labels (b, h, w): all but the boundaries, with sets of pixels for each class."""
    classes = logits.shape[1]
    named = {place: int(np.argmax(logits[place[0], :, place[1], place[2]])) for place in np.ndindex(target.shape)}
    counted = [place for place in named if target[place] != void]
    iou = []
    for k in range(classes):
        truth = {place for place in counted if target[place] == k}
        told = {place for place in counted if named[place] == k}
        iou.append(len(truth & told) / len(truth | told) if truth | told else math.nan)
    surprise, members = 0.0, [[] for _ in range(bins)]
    for b, y, x in counted:
        weights = np.exp(logits[b, :, y, x].astype(np.float64) - logits[b, :, y, x].max())
        probabilities = weights / weights.sum()
        surprise -= math.log(probabilities[target[b, y, x]])
        sure = probabilities.max()
        members[min(int(sure * bins), bins - 1)].append((sure, named[b, y, x] == target[b, y, x]))
    gaps = [abs(sum(sure for sure, _ in member) - sum(hit for _, hit in member)) for member in members]
    return {
        "miou": float(np.nanmean(iou)),
        "pixel_accuracy": sum(named[place] == target[place] for place in counted) / len(counted),
        "nll": surprise / len(counted),
        "ece": sum(gaps) / len(counted),
        "iou": tuple(iou),
        "count": len(target),
    }


def slow_boundary_f(predicted: np.ndarray, target: np.ndarray, tolerance: float, void: int = -100) -> float:
    """F-score of the outlines of one image's classes, (h, w) both; every pair of pixels is measured."""
    scores = []
    for k in set(target[target != void]) | set(predicted[target != void]):
        told, truth = (outline(classes, k, target != void) for classes in (predicted, target))
        if not told and not truth:
            continue
        near = [sum(any(math.dist(p, q) <= tolerance for q in b) for p in a) for a, b in ((told, truth), (truth, told))]
        # 2 P R / (P + R), which is 0 where only one of them has an outline
        precision, recall = (hits / max(1, len(a)) for hits, a in zip(near, (told, truth), strict=True))
        scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return sum(scores) / len(scores) if scores else math.nan


def outline(classes: np.ndarray, k: int, counts: np.ndarray) -> list[tuple[int, int]]:
    """The pixels of class k that touch a pixel of another class along a side, void ones left out."""
    height, width = classes.shape
    found = []
    for y, x in np.ndindex(height, width):
        beside = [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        inside = [(v, u) for v, u in beside if 0 <= v < height and 0 <= u < width and counts[v, u]]
        if counts[y, x] and classes[y, x] == k and any(classes[place] != k for place in inside):
            found.append((y, x))
    return found
