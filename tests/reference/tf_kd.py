"""The two forms of Tf-KD in numpy and float64, one row and class at a time."""

import math

from .frskd import cross_entropy, log_softmax


def mean_divergence(logits, aims):
    """Mean over rows AND classes of t * (log t - log p), for probabilities t and scores."""
    total, count = 0.0, 0
    for row, aim in zip(logits, aims, strict=True):
        for log, t in zip(log_softmax(row), aim, strict=True):
            total += t * (math.log(t) - log)
            count += 1
    return total / count


def softened(row, temperature):
    return [math.exp(log) for log in log_softmax([score / temperature for score in row])]


def self_terms(logits, teacher_logits, target, *, alpha, temperature, multiplier):
    aims = [softened(row, temperature) for row in teacher_logits]
    kd = mean_divergence([[score / temperature for score in row] for row in logits], aims)
    return {
        "task": (1 - alpha) * cross_entropy(logits, target),
        "kd": alpha * kd * temperature * temperature * multiplier,
    }


def reg_terms(logits, target, *, alpha, temperature, multiplier, correct, softens):
    classes = logits.shape[1]
    aims = []
    for label in target:
        aim = [correct if c == label else (1 - correct) / (classes - 1) for c in range(classes)]
        aims.append(softened(aim if softens == "probabilities" else [math.log(p) for p in aim], temperature))
    return {
        "task": (1 - alpha) * cross_entropy(logits, target),
        "reg": alpha * multiplier * mean_divergence(logits, aims),
    }
