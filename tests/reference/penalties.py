"""The confidence penalty and the focal loss, one row and one class at a time; labels are numbers or probabilities."""

import math


def log_probabilities(scores):
    total = math.log(sum(math.exp(score) for score in scores))
    return [score - total for score in scores]


def shares(label, classes):
    """A label as one share for each class."""
    return [float(c == label) for c in range(classes)] if isinstance(label, int) else label


def cross_entropy(logits, target):
    return focal(logits, target, 0.0)


def focal(logits, target, gamma):
    total = 0.0
    for scores, label in zip(logits, target, strict=True):
        for share, log_p in zip(shares(label, len(scores)), log_probabilities(scores), strict=True):
            total -= share * (1 - math.exp(log_p)) ** gamma * log_p
    return total / len(logits)


def entropy(logits):
    total = 0.0
    for scores in logits:
        for log_p in log_probabilities(scores):
            total -= math.exp(log_p) * log_p
    return total / len(logits)
