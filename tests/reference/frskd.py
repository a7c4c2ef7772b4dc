"""FRSKD's self-teacher and objective in numpy and float64, one window, row or class at a time.

Weights come by name, as a state dict; those that a computation leaves unread make `Weights.all_read` false.
"""

import math

import numpy as np

Maps = list[np.ndarray]  # (b, c, h, w), shallow to deep


class Weights:
    """Arrays by dotted name, with a note of which were read; `weights / "a.b"` is what lies under that name."""

    def __init__(self, state, prefix="", read=None):
        self.state, self.prefix = state, prefix
        self.read = set() if read is None else read

    def __truediv__(self, name):
        return Weights(self.state, f"{self.prefix}{name}.", self.read)

    def __getitem__(self, name):
        self.read.add(self.prefix + name)
        return np.asarray(self.state[self.prefix + name], dtype=np.float64)

    def places(self):
        """The numbers that follow the prefix, ascending."""
        found = {name[len(self.prefix) :].split(".")[0] for name in self.state if name.startswith(self.prefix)}
        return sorted(map(int, found))

    def all_read(self):
        """Whether every parameter was read; the running statistics of batch norms are not parameters."""
        statistics = ("running_mean", "running_var", "num_batches_tracked")
        return self.read == {name for name in self.state if not name.endswith(statistics)}


def rectified(values):
    return np.where(values > 0, values, 0.0)


def conv_1x1(maps, kernel):
    return np.einsum("bchw,dc->bdhw", maps, kernel[:, :, 0, 0])


def depthwise_3x3(maps, kernel):
    frame = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.empty_like(maps)
    for row in range(maps.shape[2]):
        for column in range(maps.shape[3]):
            window = frame[:, :, row : row + 3, column : column + 3]
            out[:, :, row, column] = (window * kernel[:, 0]).sum(axis=(2, 3))
    return out


def batch_norm(maps, weights, eps=1e-5):
    """With the batch's own mean and biased variance."""
    out = np.empty_like(maps)
    for channel, (scale, shift) in enumerate(zip(weights["weight"], weights["bias"], strict=True)):
        values = maps[:, channel]
        out[:, channel] = scale * (values - values.mean()) / math.sqrt(values.var() + eps) + shift
    return out


def point(maps, weights):
    """1x1 convolution, batch norm, ReLU."""
    return rectified(batch_norm(conv_1x1(maps, (weights / 0)["weight"]), weights / 1))


def node(maps, weights, depth):
    """`depth` times depthwise 3x3, 1x1, batch norm; a ReLU between two rounds and nowhere else."""
    places = weights.places()
    for turn in range(depth):
        in_depth, across, norm = places[3 * turn : 3 * turn + 3]
        maps = rectified(maps) if turn else maps
        maps = conv_1x1(depthwise_3x3(maps, (weights / in_depth)["weight"]), (weights / across)["weight"])
        maps = batch_norm(maps, weights / norm)
    assert len(places) == 3 * depth
    return maps


def fused(inputs, weights):
    """Sum of the inputs weighed by ReLU(w) / (sum of ReLU(w) + 1e-6)."""
    raw = rectified(weights["weight"])
    assert len(raw) == len(inputs)
    return sum(weight / (raw.sum() + 1e-6) * values for weight, values in zip(raw, inputs, strict=True))


def grown(maps, size):
    """Every position doubled along either axis, up to `size`; as it is where it has that size."""
    out = np.empty((*maps.shape[:2], *size))
    factors = [1 if have == want else 2 for have, want in zip(maps.shape[2:], size, strict=True)]
    assert all(-(-want // f) == have for have, want, f in zip(maps.shape[2:], size, factors, strict=True))
    for row in range(size[0]):
        for column in range(size[1]):
            out[:, :, row, column] = maps[:, :, row // factors[0], column // factors[1]]
    return out


def shrunk(maps, size):
    """Largest value of 3-wide windows two apart, on a frame of zeros that is wider behind than before by a pixel or 0.

    An axis that has its size already is left alone.
    """
    windows, frames = [], []
    for length, want in zip(maps.shape[2:], size, strict=True):
        halved = length != want
        assert want == (-(-length // 2) if halved else length)
        total = max((want - 1) * 2 + 3 - length, 0) if halved else 0
        frames.append((total // 2, total - total // 2))
        windows.append([slice(2 * i, 2 * i + 3) if halved else slice(i, i + 1) for i in range(want)])
    frame = np.pad(maps, ((0, 0), (0, 0), *frames))
    out = np.empty((*maps.shape[:2], *size))
    for row, tall in enumerate(windows[0]):
        for column, wide in enumerate(windows[1]):
            out[:, :, row, column] = frame[:, :, tall, wide].max(axis=(2, 3))
    return out


def top_down_and_up(features, weights, *, depth, fixed_width, first):
    """One pass over the levels: the refined maps before their ReLU."""
    deepest = len(features) - 1
    sizes = [feature.shape[2:] for feature in features]
    seen = [rectified(feature) for feature in features]
    lateral = [point(each, weights / f"lateral_down.{i}") if first else each for i, each in enumerate(seen)]
    second = [None] + [point(seen[i], weights / f"lateral_up.{i - 1}") for i in range(1, len(seen))]
    coming_down = {deepest: lateral[deepest] if first else features[deepest]}
    for i in reversed(range(deepest)):
        from_below = grown(rectified(coming_down[i + 1]), sizes[i])
        if not fixed_width:
            from_below = point(from_below, weights / f"point_down.{i}")
        mixture = fused([rectified(lateral[i]), from_below], weights / f"fuse_down.{i}")
        coming_down[i] = node(mixture, weights / f"node_down.{i}", depth)
    refined = [coming_down[0]]
    for i in range(1, len(features)):
        from_above = shrunk(rectified(refined[-1]), sizes[i])
        if not fixed_width:
            from_above = point(from_above, weights / f"point_up.{i - 1}")
        parts = [second[i], rectified(coming_down[i]), from_above] if i < deepest else [second[i], from_above]
        mixture = fused(parts, weights / f"fuse_up.{i - 1}")
        refined.append(node(mixture, weights / f"node_up.{i - 1}", depth))
    return refined


def self_teacher(features, weights, *, depth, fixed_width=False, repeat=1, preactivation=False):
    """Class scores (b, k) and refined maps of a BiFPNc, or of a BiFPN where `fixed_width`."""
    maps = features
    for number in range(repeat):
        under = weights / f"passes.{number}"
        maps = top_down_and_up(maps, under, depth=depth, fixed_width=fixed_width, first=number == 0)
    pooled = rectified(maps[-1]).mean(axis=(2, 3))
    logits = pooled @ (weights / "fc")["weight"].T + (weights / "fc")["bias"]
    return logits, maps if preactivation else [rectified(each) for each in maps]


def log_softmax(row):
    top = max(row)
    return [score - top - math.log(sum(math.exp(other - top) for other in row)) for score in row]


def cross_entropy(logits, target):
    """Mean over rows; `target` holds class numbers, or one row of probabilities each."""
    total = 0.0
    for row, label in zip(logits, target, strict=True):
        logs = log_softmax(row)
        total -= logs[label] if np.ndim(label) == 0 else sum(p * log for p, log in zip(label, logs, strict=True))
    return total / len(logits)


def soft_label_loss(student, teacher, temperature):
    """T^2 * KL(teacher || student), summed over classes, mean over rows."""
    total = 0.0
    for own, taught in zip(student, teacher, strict=True):
        logs = log_softmax([score / temperature for score in own])
        for log, aim in zip(logs, log_softmax([score / temperature for score in taught]), strict=True):
            total += math.exp(aim) * (aim - log)
    return temperature**2 * total / len(student)


def attention_map(feature):
    """One row's channel mean of squares, as a vector of unit length over its positions."""
    vector = np.mean(feature**2, axis=0).ravel()
    return vector / max(math.sqrt((vector**2).sum()), 1e-12)


def attention_loss(features, refined):
    total = 0.0
    for level, aims in zip(features, refined, strict=True):
        squares = [(attention_map(own) - attention_map(aim)) ** 2 for own, aim in zip(level, aims, strict=True)]
        total += np.concatenate(squares).mean()
    return total


def connected(feature, weights, rectify):
    return point(feature, weights) if rectify else batch_norm(conv_1x1(feature, (weights / 0)["weight"]), weights / 1)


def hint_loss(features, refined, weights):
    total = 0.0
    for level, (feature, aim) in enumerate(zip(features, refined, strict=True)):
        total += ((connected(feature, weights / level, True) - aim) ** 2).mean()
    return total


def margin(scale, shift):
    """Expected value of a Gaussian (mean `shift`, deviation |`scale`|), given that it is negative."""
    deviation = abs(scale)
    below = 0.5 * math.erfc(shift / deviation / math.sqrt(2))
    if below <= 0.001:
        return -3 * deviation
    return shift - deviation * math.exp(-((shift / deviation) ** 2) / 2) / math.sqrt(2 * math.pi) / below


def overhaul_loss(features, refined, weights, margins):
    """Sum of squares where there is something to learn, each row 1/b, each level half of the next deeper."""
    total = 0.0
    for level, (feature, aims, bounds) in enumerate(zip(features, refined, margins, strict=True)):
        own = connected(feature, weights / level, False)
        summed = 0.0
        for channel, bound in enumerate(bounds):
            for value, aim in zip(own[:, channel].ravel(), aims[:, channel].ravel(), strict=True):
                goal = max(aim, bound)
                if value > goal or goal > 0:
                    summed += (value - goal) ** 2
        total += summed / len(feature) / 2 ** (len(features) - 1 - level)
    return total


def objective(logits, features, teacher_logits, refined, target, *, alpha, beta, temperature, feature_distance):
    """The weighted terms of FRSKD; `feature_distance` takes the maps of the student and of the self-teacher."""
    return {
        "task": cross_entropy(logits, target),
        "teacher": cross_entropy(teacher_logits, target),
        "kd": alpha * soft_label_loss(logits, teacher_logits, temperature),
        "feature": beta * feature_distance(features, refined),
    }


def turned(images):
    """Row 4 * b + k is image b after k quarter turns counter-clockwise."""
    rows = []
    for image in images:
        for _ in range(4):
            rows.append(image)
            image = np.stack([[column for column in channel.T[::-1]] for channel in image])
    return np.stack(rows)


def aggregated(joint):
    """Mean over the turns k of the joint score of class c and turn k, of the row that was turned k times."""
    classes = joint.shape[1] // 4
    votes = np.zeros((len(joint) // 4, classes))
    for b in range(len(votes)):
        for c in range(classes):
            votes[b, c] = sum(joint[4 * b + k, 4 * c + k] for k in range(4)) / 4
    return votes


def sla_terms(logits, joint, teacher_logits, teacher_joint, target, *, temperature, alpha, gamma=1.0):
    """What rotations add to the objective, and its soft-label loss, which then runs over 2 b rows."""
    both = [4 * label + k for label in target for k in range(4)]
    votes, teacher_votes = aggregated(joint), aggregated(teacher_joint)
    own, taught = np.concatenate([logits, votes]), np.concatenate([teacher_logits, teacher_votes])
    return {
        "joint": cross_entropy(joint, both),
        "teacher_joint": cross_entropy(teacher_joint, both),
        "votes": gamma * soft_label_loss(logits, votes, temperature),
        "teacher_votes": gamma * soft_label_loss(teacher_logits, teacher_votes, temperature),
        "kd": alpha * soft_label_loss(own, taught, temperature),
    }


def growing_weight(progress, warmup, ramp):
    """0 until `warmup`, then exp(-5 (1 - t)^2) while t goes from 0 to 1 over `ramp`, then 1."""
    if progress < warmup:
        return 0.0
    if progress >= warmup + ramp:
        return 1.0
    return math.exp(-5 * (1 - (progress - warmup) / ramp) ** 2)
