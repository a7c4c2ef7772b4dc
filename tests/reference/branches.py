"""What BYOT, DKS, ONE and MixSKD minimise, in numpy and float64, one row, class or position at a time."""

import math

import numpy as np

from reference.frskd import Weights, batch_norm, conv_1x1, cross_entropy, log_softmax, rectified, soft_label_loss


def depthwise(maps, kernel, stride):
    """3x3 windows `stride` apart on a frame of zeros, a kernel per channel."""
    frame = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = (-(-length // stride) for length in maps.shape[2:])
    out = np.empty((*maps.shape[:2], height, width))
    for row in range(height):
        for column in range(width):
            top, left = row * stride, column * stride
            window = frame[:, :, top : top + 3, left : left + 3]
            out[:, :, row, column] = (window * kernel[:, 0]).sum(axis=(2, 3))
    return out


def separable(maps, weights, stride):
    """Depthwise, 1x1, batch norm and ReLU, and once more without stride and ReLU."""
    first, across, norm, _, second, out, last = (weights / place for place in range(7))
    maps = conv_1x1(depthwise(maps, first["weight"], stride), across["weight"])
    maps = conv_1x1(depthwise(rectified(batch_norm(maps, norm)), second["weight"], 1), out["weight"])
    return batch_norm(maps, last)


def enlarged(maps, size):
    """Bilinear: each target pixel's centre, where it falls among the source's, borders held."""
    for axis, length in zip((2, 3), size, strict=True):
        have = maps.shape[axis]
        slices = []
        for place in range(length):
            at = min(max((place + 0.5) * have / length - 0.5, 0), have - 1)
            low = int(at)
            near, far = maps.take(low, axis), maps.take(min(low + 1, have - 1), axis)
            slices.append((1 - (at - low)) * near + (at - low) * far)
        maps = np.stack(slices, axis)
    return maps


def gated(maps, weights):
    scores = enlarged(separable(maps, weights / "block", 2), maps.shape[2:])
    return maps / (1 + np.exp(-scores))


def separable_exit(maps, weights, *, halvings, attention):
    """The scores and the last map of an exit."""
    if attention:
        maps = gated(maps, weights / "gate")
    for place in range(max(halvings, 1)):
        maps = rectified(separable(maps, weights / "blocks" / place / 0, 2 if halvings else 1))
    return linear(maps.mean(axis=(2, 3)), weights / "fc"), maps


def linear(rows, weights, bias=True):
    return rows @ weights["weight"].T + (weights["bias"] if bias else 0.0)


def byot(logits, deepest, exits, target, *, alpha, temperature, weight, squared):
    """`exits` holds scores and last map of each exit."""
    kd = sum(soft_label_loss(scores, logits, temperature) for scores, _ in exits)
    distances = 0.0
    for _, own in exits:
        for row, aim in zip(own, deepest, strict=True):
            for channel, other in zip(row, aim, strict=True):
                distances += (np.mean(channel) - np.mean(other)) ** 2
    return {
        "task": cross_entropy(logits, target),
        "exits": (1 - alpha) * sum(cross_entropy(scores, target) for scores, _ in exits),
        "kd": alpha * kd / (1 if squared else temperature**2),
        "feature": weight * distances / (deepest.shape[0] * deepest.shape[1]),
    }


def dks(logits, heads, target, *, weight, temperature):
    classifiers = [logits, *heads]
    pairs = [(i, j) for i in range(len(classifiers)) for j in range(len(classifiers)) if i != j]
    return {
        "task": cross_entropy(logits, target),
        "heads": sum(cross_entropy(scores, target) for scores in heads),
        "synergy": weight * sum(soft_label_loss(classifiers[i], classifiers[j], temperature) for i, j in pairs),
    }


def gate_shares(feature, weights):
    """The weight of each branch in each image's ensemble."""
    scores = linear(feature.mean(axis=(2, 3)), weights / "layers" / 0, bias=False)
    scores = rectified(batch_norm(scores[:, :, None, None], weights / "layers" / 1)[:, :, 0, 0])
    return np.array([[math.exp(log) for log in log_softmax(row)] for row in scores])


def one(logits, copies, shares, target, *, weight, temperature, ramp):
    """`ramp` is the weight that the lessons have grown to."""
    branches = [logits, *copies]
    ensemble = np.zeros_like(logits)
    for row in range(len(logits)):
        for share, scores in zip(shares[row], branches, strict=True):
            ensemble[row] += share * scores[row]
    return {
        "task": cross_entropy(logits, target),
        "branches": sum(cross_entropy(scores, target) for scores in copies),
        "ensemble": cross_entropy(ensemble, target),
        "kd": ramp * weight * sum(soft_label_loss(scores, ensemble, temperature) for scores in branches),
    }


def mixtures(values, share, order):
    return np.stack([share * values[row] + (1 - share) * values[order[row]] for row in range(len(order))])


def self_teacher(maps, weights):
    """A 1x1 convolution over the channels of all maps, the mean over positions, a linear layer."""
    joined = conv_1x1(np.concatenate(maps, axis=1), (weights / 0)["weight"][:, :, None, None])
    return linear(joined.mean(axis=(2, 3)), weights / 1)


def discrimination(between, mixed, weights):
    """Mean over both outputs of all rows of -log p, p the probability given to the right answer yes or no."""
    total, count = 0.0, 0
    for maps, answers in ((between, (1, 0)), (mixed, (0, 1))):
        scores = linear(rectified(linear(maps.mean(axis=(2, 3)), weights / 0)), weights / 2)
        for row in scores:
            for score, answer in zip(row, answers, strict=True):
                total += math.log(1 + math.exp(-score if answer else score))
                count += 1
    return total / count


def mixskd(scores, maps, target, *, share, order, temperature, teacher: Weights, discriminators: Weights):
    """`scores` and `maps` are of 2 b rows, images and then mixtures, one of each branch and last the student's."""
    rows = len(order)
    clean, mixed = [each[:rows] for each in scores], [each[rows:] for each in scores]
    between = [mixtures(each, share, order) for each in clean]
    maps_mixed, maps_between = [each[rows:] for each in maps], [mixtures(each[:rows], share, order) for each in maps]
    h_between, h_mixed = self_teacher(maps_between, teacher), self_teacher(maps_mixed, teacher)
    kd = soft_label_loss(between[-1], h_mixed, temperature) + soft_label_loss(mixed[-1], h_between, temperature)
    for own, other in zip(between[:-1], mixed[:-1], strict=True):
        kd += soft_label_loss(own, other, temperature) + soft_label_loss(other, own, temperature)
    labels_of_both = [target, [target[row] for row in order]]
    return {
        "task": cross_entropy(clean[-1], target),
        "branches": sum(cross_entropy(each, target) for each in clean[:-1]),
        "kd": kd,
        "feature": sum(((one - other) ** 2).mean() for one, other in zip(maps_between, maps_mixed, strict=True)),
        "discriminators": sum(
            discrimination(*pair, discriminators / place)
            for place, pair in enumerate(zip(maps_between, maps_mixed, strict=True))
        ),
        "mixed_task": sum(
            part * cross_entropy(each, labels)
            for part, labels in zip((share, 1 - share), labels_of_both, strict=True)
            for each in [*mixed, h_between, h_mixed]
        ),
    }
