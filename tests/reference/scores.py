"""The scores of a classifier, row by row in numpy, from their definitions."""

import math

import numpy as np


def slow_scores(logits: np.ndarray, target: np.ndarray, bins: int = 15) -> dict[str, float]:
    """Top-1 and top-5 shares, negative log-likelihood in nats and l1 calibration error, all in float64."""
    first = fifth = surprise = 0.0
    members: list[list[tuple[float, bool]]] = [[] for _ in range(bins)]
    for scores, label in zip(logits.astype(np.float64), target, strict=True):
        weights = [math.exp(score - max(scores)) for score in scores]
        probabilities = [weight / sum(weights) for weight in weights]
        ranking = sorted(range(len(scores)), key=lambda k: -scores[k])
        first += ranking[0] == label
        fifth += label in ranking[:5]
        surprise -= math.log(probabilities[label])
        confidence = probabilities[ranking[0]]
        members[min(int(confidence * bins), bins - 1)].append((confidence, ranking[0] == label))
    error = 0.0
    for member in filter(None, members):
        confident = sum(confidence for confidence, _ in member) / len(member)
        correct = sum(hit for _, hit in member) / len(member)
        error += len(member) / len(target) * abs(confident - correct)
    rows = len(target)
    return {"top1": first / rows, "top5": fifth / rows, "nll": surprise / rows, "ece": error}
