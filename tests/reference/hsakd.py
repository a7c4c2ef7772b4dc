"""HSAKD's objectives row by row and class by class, in plain Python; scores are lists of rows.

Row 4 b + k is image b turned k times, and its joint label is 4 y + k.
"""

import math


def log_softmax(row, temperature=1.0):
    highest = max(row) / temperature
    total = math.log(sum(math.exp(score / temperature - highest) for score in row)) + highest
    return [score / temperature - total for score in row]


def cross_entropy(rows, labels):
    return -sum(log_softmax(row)[label] for row, label in zip(rows, labels, strict=True)) / len(rows)


def imitation(rows, teacher_rows, temperature):
    """T^2 KL(teacher || student), the mean over rows."""
    total = 0.0
    for row, teacher_row in zip(rows, teacher_rows, strict=True):
        own, teacher = log_softmax(row, temperature), log_softmax(teacher_row, temperature)
        total += sum(math.exp(q) * (q - p) for p, q in zip(own, teacher, strict=True))
    return temperature**2 * total / len(rows)


def upright(rows):
    return [row for place, row in enumerate(rows) if place % 4 == 0]


def joint_labels(target):
    return [4 * label + turn for label in target for turn in range(4)]


def partners(levels, teacher_levels):
    """Pairs (student's level, teacher's level), counted from the deepest until the teacher's shallowest."""
    return [(levels - depth, teacher_levels - min(depth, teacher_levels)) for depth in range(1, levels + 1)]


def teacher_terms(logits, joint, target, prefix=""):
    return {
        f"{prefix}task": cross_entropy(upright(logits), target),
        f"{prefix}joint": sum(cross_entropy(rows, joint_labels(target)) for rows in joint),
    }


def student_terms(logits, joint, teacher_logits, teacher_joint, target, temperature):
    pairs = partners(len(joint), len(teacher_joint))
    return {
        "task": cross_entropy(upright(logits), target),
        "kd": imitation(logits, teacher_logits, temperature),
        "joint": sum(imitation(joint[own], teacher_joint[other], temperature) for own, other in pairs),
    }


def online_terms(logits, joint, peer_logits, peer_joint, target, temperature):
    return {
        **teacher_terms(logits, joint, target),
        **teacher_terms(peer_logits, peer_joint, target, "peer_"),
        "kd": imitation(logits, peer_logits, temperature),
        "peer_kd": imitation(peer_logits, logits, temperature),
        "joint_kd": sum(imitation(*pair, temperature) for pair in zip(joint, peer_joint, strict=True)),
        "peer_joint_kd": sum(imitation(*pair, temperature) for pair in zip(peer_joint, joint, strict=True)),
    }
