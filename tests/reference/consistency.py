"""The losses of methods that keep one network and compare two looks at an image, one row and one class at a time."""

import math

import numpy as np

from .frskd import cross_entropy, log_softmax, soft_label_loss


def probabilities(row, temperature=1.0):
    return [math.exp(log) for log in log_softmax([score / temperature for score in row])]


def ps_kd_loss(logits, labels, past, share):
    """Cross-entropy against the label's mass 1 - share plus share times the past; a row of None has no past."""
    total = 0.0
    for row, label, before in zip(logits, labels, past, strict=True):
        for k, log in enumerate(log_softmax(row)):
            mass = float(k == label)
            total -= log * (mass if before is None else (1 - share) * mass + share * before[k])
    return total / len(labels)


def dlb_terms(logits, labels, again, last_labels, last_logits, *, weight, temperature):
    """Of a step with something to look back on: `again` are the last batch's other views, seen now."""
    summed = len(labels) * cross_entropy(logits, labels) + len(last_labels) * cross_entropy(again, last_labels)
    return {
        "task": summed / (len(labels) + len(last_labels)),
        "kd": weight * soft_label_loss(again, last_logits, temperature),
    }


def mean_squared_probability_gap(logits, others):
    gaps = [
        (p - q) ** 2
        for row, other in zip(logits, others, strict=True)
        for p, q in zip(probabilities(row), probabilities(other), strict=True)
    ]
    return sum(gaps) / len(gaps)


def trailing_average(values, decay):
    """The average after each of `values`, an array's history; the first is where both start."""
    average = values[0]
    for step, value in enumerate(values[1:], 1):
        kept = decay if decay < step / (step + 1) else step / (step + 1)
        average = kept * average + (1 - kept) * value
    return average


def bake_targets(features, logits, *, omega, temperature, rounds=300):
    """Each row's soft label, by spreading over and over what the rows say."""
    unit = [row / math.sqrt((row**2).sum()) for row in features]
    said = np.array([probabilities(row, temperature) for row in logits])
    neighbours = []
    for i, row in enumerate(unit):
        alike = [0.0 if i == j else math.exp(float(row @ other)) for j, other in enumerate(unit)]
        neighbours.append([each / sum(alike) for each in alike])
    labels = said
    for _ in range(rounds):
        labels = np.array(
            [
                sum(omega * share * label for share, label in zip(shares, labels, strict=True)) + (1 - omega) * own
                for shares, own in zip(neighbours, said, strict=True)
            ]
        )
    return labels


def divergence(logits, targets, temperature):
    """T^2 * KL(targets || softmax(logits / T)), mean over rows."""
    total = 0.0
    for row, target in zip(logits, targets, strict=True):
        logs = log_softmax([score / temperature for score in row])
        total += sum(q * (math.log(q) - log) for q, log in zip(target, logs, strict=True))
    return temperature**2 * total / len(logits)


def mean_embedding_distance(features, others):
    """Squared distance of the two batches' mean embeddings; an embedding is a map's mean over its positions."""
    total = 0.0
    for channel in range(features.shape[1]):
        means = [sum(image[channel].mean() for image in batch) / len(batch) for batch in (features, others)]
        total += (means[0] - means[1]) ** 2
    return total
