"""What the methods minimise in segmentation, in numpy and float64, one pixel and class at a time.

Scores are (b, k, h, w) and labels (b, h, w); a pixel of label `VOID` has none.
"""

import math

import numpy as np

from reference.at_sad import at_loss, sad_loss
from reference.branches import enlarged, gated, separable
from reference.frskd import attention_loss, batch_norm, conv_1x1, growing_weight, point, rectified, top_down_and_up
from reference.tfd import inter, intra

VOID = -100


def logs(scores, place, temperature=1.0):
    """The log-probabilities of the classes at one pixel, `place` being its image, row and column."""
    image, row, column = place
    column_of_scores = [scores[image, k, row, column] / temperature for k in range(scores.shape[1])]
    top = max(column_of_scores)
    norm = top + math.log(math.fsum(math.exp(score - top) for score in column_of_scores))
    return [score - norm for score in column_of_scores]


def labelled(target):
    return [place for place in np.ndindex(*target.shape) if target[place] != VOID]


def mean_over(places, value):
    return math.fsum(map(value, places)) / len(places) if places else 0.0


def cross_entropy(scores, target):
    return mean_over(labelled(target), lambda place: -logs(scores, place)[target[place]])


def smoothed_cross_entropy(scores, target, *, epsilon, share="all"):
    """The true class gives `epsilon` away: "all" classes receive as much of it, or the "others" alone."""
    classes = scores.shape[1]

    def at(place):
        total = 0.0
        for k, log in enumerate(logs(scores, place)):
            own = k == target[place]
            if share == "all":
                aim = (1 - epsilon) * own + epsilon / classes
            else:
                aim = 1 - epsilon if own else epsilon / (classes - 1)
            total -= aim * log
        return total

    return mean_over(labelled(target), at)


def soft_label_loss(scores, teacher_scores, temperature, places):
    """T^2 * KL(teacher || student), summed over the classes, mean over `places`."""

    def at(place):
        pairs = zip(logs(scores, place, temperature), logs(teacher_scores, place, temperature), strict=True)
        return sum(math.exp(aim) * (aim - own) for own, aim in pairs)

    return temperature**2 * mean_over(places, at)


def frskd(logits, features, teacher_logits, refined, target, *, settings, progress):
    """`teacher_logits` are of the finest level's size; `settings` are the method's hyper-parameters."""
    taught = enlarged(teacher_logits, target.shape[1:])
    terms = {"task": cross_entropy(logits, target), "teacher": cross_entropy(taught, target)}
    weight = growing_weight(progress, settings["warmup"], settings["ramp"])
    if settings["alpha"]:
        places = list(np.ndindex(*target.shape)) if settings["distil_void"] else labelled(target)
        terms["kd"] = weight * settings["alpha"] * soft_label_loss(logits, taught, settings["temperature"], places)
    if settings["beta"]:
        terms["feature"] = weight * settings["beta"] * attention_loss(features, refined)
    return terms


def byot(logits, deepest, exits, target, *, alpha, temperature, feature_weight, squared_temperature):
    """`exits` holds the scores, of the size of its last map, and the last map of each exit."""
    scores = [enlarged(each, target.shape[1:]) for each, _ in exits]
    kd = sum(soft_label_loss(each, logits, temperature, labelled(target)) for each in scores)
    distance = 0.0
    for _, final in exits:
        for image, channel in np.ndindex(*deepest.shape[:2]):
            distance += (np.mean(final[image, channel]) - np.mean(deepest[image, channel])) ** 2
    return {
        "task": cross_entropy(logits, target),
        "exits": (1 - alpha) * sum(cross_entropy(each, target) for each in scores),
        "kd": alpha * kd / (1 if squared_temperature else temperature**2),
        "feature": feature_weight * distance / deepest.shape[0] / deepest.shape[1],
    }


def tfd(logits, features, target, *, alpha, epsilon):
    return {
        "task": smoothed_cross_entropy(logits, target, epsilon=epsilon),
        "inter": alpha * inter(features),
    }


def tf_fd(logits, features, target, *, lambda_inter, lambda_intra, epsilon, grown):
    return {
        "task": smoothed_cross_entropy(logits, target, epsilon=epsilon),
        "inter": grown * lambda_inter * inter(features),
        "intra": grown * lambda_intra * intra(features),
    }


def sad(logits, features, target, *, weight, reduction):
    return {"task": cross_entropy(logits, target), "attention": weight * sad_loss(features, reduction)}


def kd(logits, teacher_logits, target, *, alpha, beta, temperature):
    taught = soft_label_loss(logits, teacher_logits, temperature, labelled(target))
    return {"task": alpha * cross_entropy(logits, target), "kd": beta * taught}


def at(logits, features, teacher_features, target, *, beta):
    return {"task": cross_entropy(logits, target), "attention": beta * at_loss(features, teacher_features)}


def tf_kd_self(logits, teacher_logits, target, *, alpha, temperature, multiplier):
    """A mean over the classes, not a sum."""
    taught = soft_label_loss(logits, teacher_logits, temperature, labelled(target)) / logits.shape[1]
    return {"task": (1 - alpha) * cross_entropy(logits, target), "kd": alpha * multiplier * taught}


def tf_kd_reg(logits, target, *, alpha, temperature, multiplier, correct, softens):
    """The virtual teacher's probabilities, or their logarithms, go through a softmax at `temperature`."""
    classes = logits.shape[1]

    def at_pixel(place):
        aims = [correct if k == target[place] else (1 - correct) / (classes - 1) for k in range(classes)]
        powers = [math.exp((aim if softens == "probabilities" else math.log(aim)) / temperature) for aim in aims]
        total = 0.0
        for power, own in zip(powers, logs(logits, place), strict=True):
            aim = power / sum(powers)
            total += aim * (math.log(aim) - own) / classes
        return total

    return {
        "task": (1 - alpha) * cross_entropy(logits, target),
        "reg": alpha * multiplier * mean_over(labelled(target), at_pixel),
    }


def scored(maps, weights):
    """A linear layer at every position."""
    return conv_1x1(maps, weights["weight"]) + weights["bias"][:, None, None]


def self_teacher(features, weights, *, depth, fixed_width=False, repeat=1):
    """Class scores at the size of the finest level, of all refined maps together; and these maps."""
    maps = features
    for number in range(repeat):
        under = weights / f"passes.{number}"
        maps = top_down_and_up(maps, under, depth=depth, fixed_width=fixed_width, first=number == 0)
    refined = [rectified(each) for each in maps]
    together = 0.0
    for level, each in enumerate(refined):
        narrow = point(each, weights / f"fc.points.{level}")
        together = together + enlarged(narrow, refined[0].shape[2:])
    return scored(together, weights / "fc.classifier"), refined


def separable_exit(maps, weights, *, halvings, attention):
    """The scores at the positions of an exit's last map, and that map."""
    if attention:
        maps = gated(maps, weights / "gate")
    for place in range(halvings):
        maps = rectified(separable(maps, weights / "blocks" / place / 0, 2))
    return scored(maps, weights / "fc"), maps


def nearest(maps, size):
    out = np.empty((*maps.shape[:2], *size))
    for row, column in np.ndindex(*size):
        out[:, :, row, column] = maps[:, :, row * maps.shape[2] // size[0], column * maps.shape[3] // size[1]]
    return out


def node(maps, weights):
    """A weight and a bias for each channel, batch norm, ReLU."""
    scaled = np.empty_like(maps)
    kernel, bias = (weights / 0)["weight"], (weights / 0)["bias"]
    for channel in range(maps.shape[1]):
        scaled[:, channel] = kernel[channel, 0, 0, 0] * maps[:, channel] + bias[channel]
    return rectified(batch_norm(scaled, weights / 1))


def pyramid_layer(maps, weights, *, bottom_up):
    """Down the pyramid by plain sums with bilinear enlargement and, with `bottom_up`, up again with nearest pixels."""
    down = {len(maps) - 1: node(maps[-1], weights / f"node_down.{len(maps) - 1}")}
    for i in reversed(range(len(maps) - 1)):
        down[i] = node(maps[i] + enlarged(down[i + 1], maps[i].shape[2:]), weights / f"node_down.{i}")
    if not bottom_up:
        return [down[i] for i in range(len(maps))]
    up = [down[0]]
    for i in range(1, len(maps)):
        up.append(node(maps[i] + down[i] + nearest(up[-1], maps[i].shape[2:]), weights / f"node_up.{i - 1}"))
    return up


def conv_3x3(maps, weights):
    frame = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.empty((len(maps), len(weights["weight"]), *maps.shape[2:]))
    for row, column in np.ndindex(*maps.shape[2:]):
        window = frame[:, :, row : row + 3, column : column + 3]
        out[:, :, row, column] = np.tensordot(window, weights["weight"], axes=((1, 2, 3), (1, 2, 3))) + weights["bias"]
    return out


def pyramid_teacher(features, weights):
    """Two further layers, the second without its way up, and a head on the finest map."""
    between = pyramid_layer(features, weights / "layers.0", bottom_up=True)
    refined = pyramid_layer(between, weights / "layers.1", bottom_up=False)
    hidden = rectified(batch_norm(conv_3x3(refined[0], weights / "head.0"), weights / "head.1"))
    return conv_3x3(hidden, weights / "head.3"), refined
