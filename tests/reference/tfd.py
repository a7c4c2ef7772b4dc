"""TFD and Tf-FD in numpy and float64, one pair of maps, window or channel at a time."""

import math

import numpy as np

from reference.frskd import cross_entropy


def smoothed(target, classes, epsilon):
    """One row of probabilities per label: the true class gives `epsilon` away, to all classes alike."""
    rows = np.full((len(target), classes), epsilon / classes)
    for row, label in zip(rows, target, strict=True):
        row[label] += 1 - epsilon
    return rows


def pooled(maps, size):
    """Averages over windows that cover the map; window i of n begins at floor(i * length / n)."""
    height, width = maps.shape[2:]
    out = np.empty((*maps.shape[:2], *size))
    for i in range(size[0]):
        rows = slice(i * height // size[0], -(-(i + 1) * height // size[0]))
        for j in range(size[1]):
            columns = slice(j * width // size[1], -(-(j + 1) * width // size[1]))
            out[:, :, i, j] = maps[:, :, rows, columns].mean(axis=(2, 3))
    return out


def pair_loss(shallow, deep):
    size = tuple(np.minimum(shallow.shape[2:], deep.shape[2:]))
    shallow, deep = pooled(shallow, size), pooled(deep, size)
    squares = []
    for channel in range(min(shallow.shape[1], deep.shape[1])):
        squares.append((shallow[:, channel] - deep[:, channel]) ** 2)
    return np.mean(squares)


def inter(features):
    values = [pair_loss(features[i], features[j]) for j in range(len(features)) for i in range(j)]
    return sum(values) / len(values)


def ranking(feature):
    """Channels, the most salient first."""
    scores = []
    for channel in range(feature.shape[1]):
        total = 0.0
        for image in feature[:, channel]:
            norm = math.sqrt((image**2).sum())
            total += (image / norm).mean() if norm else 0.0
        scores.append(total / len(feature))
    return sorted(range(len(scores)), key=lambda channel: -scores[channel])


def halves(feature):
    """The channels of the more and of the less salient half, in pairs."""
    ranked = ranking(feature)
    half = len(ranked) // 2
    return list(zip(ranked[:half], ranked[len(ranked) - half :], strict=True))


def intra(features):
    total = 0.0
    for feature in features:
        total += np.mean([(feature[:, one] - feature[:, other]) ** 2 for one, other in halves(feature)])
    return total / len(features)


def tfd_terms(logits, features, target, *, alpha, epsilon):
    labels = smoothed(target, logits.shape[1], epsilon)
    return {"task": cross_entropy(logits, labels), "inter": alpha * inter(features)}


def tf_fd_terms(logits, features, target, *, lambda_inter, lambda_intra, epsilon, growth):
    labels = smoothed(target, logits.shape[1], epsilon)
    return {
        "task": cross_entropy(logits, labels),
        "inter": growth * lambda_inter * inter(features),
        "intra": growth * lambda_intra * intra(features),
    }
