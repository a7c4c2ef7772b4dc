"""NKD's and USKD's losses in plain Python, one row and class at a time; scores are lists of rows."""

import math

from reference.frskd import log_softmax


def without(row, label):
    return [value for k, value in enumerate(row) if k != label]


def softmax(row, temperature=1.0):
    return [math.exp(log) for log in log_softmax([score / temperature for score in row])]


def nkd_true_class(scores, teacher_scores, target):
    total = 0.0
    for row, taught, label in zip(scores, teacher_scores, target, strict=True):
        total -= softmax(taught)[label] * math.log(softmax(row)[label])
    return total / len(scores)


def nkd_other_classes(scores, teacher_scores, target, temperature):
    """Probabilities at the temperature, divided by what is left of 1 without the true class."""
    total = 0.0
    for row, taught, label in zip(scores, teacher_scores, target, strict=True):
        own, aim = (softmax(each, temperature) for each in (row, taught))
        for k in range(len(row)):
            if k != label:
                total -= aim[k] / (1 - aim[label]) * math.log(own[k] / (1 - own[label]))
    return temperature**2 * total / len(scores)


def uskd_true_class(scores, target):
    sure = [softmax(row)[label] for row, label in zip(scores, target, strict=True)]
    mean = sum(each**2 for each in sure) / len(sure)
    return sum(-(each**2 + 1 - mean) * math.log(each) for each in sure) / len(sure)


def uskd_other_classes(scores, weak_scores, target):
    harmonic = sum(1 / rank for rank in range(1, len(scores[0])))
    total = 0.0
    for row, weak, label in zip(scores, weak_scores, target, strict=True):
        own, aid = softmax(row), softmax(weak)
        combined = {k: aid[k] / (1 - aid[label]) + own[k] / (1 - own[label]) for k in range(len(row)) if k != label}
        for rank, k in enumerate(sorted(combined, key=combined.get, reverse=True), 1):
            total -= 1 / rank / harmonic * math.log(own[k] / (1 - own[label]))
    return total / len(scores)


def smoothed(scores, target):
    """Cross-entropy against 0.9 for the true class and 0.1 for all classes together."""
    total = 0.0
    for row, label in zip(scores, target, strict=True):
        for k, log in enumerate(log_softmax(row)):
            total -= (0.9 * (k == label) + 0.1 / len(row)) * log
    return total / len(scores)
