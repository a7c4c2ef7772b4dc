"""SSKD's objective one pair of rows at a time, in plain Python; row 4 b + k is image b turned k times."""

import math

from .hsakd import cross_entropy, imitation, upright


def turned_rows(rows):
    return [row for place, row in enumerate(rows) if place % 4 != 0]


def cosine(first, second):
    lengths = [math.sqrt(sum(value * value for value in row)) for row in (first, second)]
    return sum(a * b for a, b in zip(first, second, strict=True)) / (lengths[0] * lengths[1])


def likenesses(embeddings):
    """For each turned row its cosine with every upright one."""
    return [[cosine(row, other) for other in upright(embeddings)] for row in turned_rows(embeddings)]


def of_each_turned_row(labels):
    return [label for label in labels for _ in range(3)]


def contrast(embeddings, temperature):
    """Minus the log probability of each turned row's own image among all upright ones."""
    rows = [[value / temperature for value in row] for row in likenesses(embeddings)]
    return cross_entropy(rows, of_each_turned_row(range(len(embeddings) // 4)))


def taught(teacher_rows, labels, share):
    """Places of the rows that teach: the right ones, and the first `share` of the wrong ones, least wrong first."""
    ranks = [sorted(row, reverse=True).index(row[label]) for row, label in zip(teacher_rows, labels, strict=True)]
    right = [place for place, rank in enumerate(ranks) if rank == 0]
    wrong = sorted((rank, place) for place, rank in enumerate(ranks) if rank > 0)
    return right + [place for _, place in wrong[: int(len(wrong) * share)]]


def selected(rows, teacher_rows, labels, share, temperature):
    places = taught(teacher_rows, labels, share)
    if not places:
        return 0.0
    return imitation([rows[place] for place in places], [teacher_rows[place] for place in places], temperature)


def student_terms(logits, embeddings, teacher_logits, teacher_embeddings, target, settings):
    """The weighted terms; `settings` are the method's, by name."""
    images = of_each_turned_row(range(len(target)))
    soft = imitation(upright(logits), upright(teacher_logits), settings["temperature"])
    rotated = selected(
        turned_rows(logits),
        turned_rows(teacher_logits),
        of_each_turned_row(target),
        settings["transformation_share"],
        settings["temperature"],
    )
    alike = selected(
        likenesses(embeddings),
        likenesses(teacher_embeddings),
        images,
        settings["similarity_share"],
        settings["similarity_temperature"],
    )
    return {
        "task": settings["task_weight"] * cross_entropy(upright(logits), target),
        "kd": settings["kd_weight"] * soft,
        "transformation": settings["transformation_weight"] * rotated,
        "similarity": settings["similarity_weight"] * alike,
    }
