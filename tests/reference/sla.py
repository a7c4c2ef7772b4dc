"""SLA and SLA-SD from the scores of both classifiers, one row and one class at a time.

`logits` holds a row for every upright image, `joint` four rows for each, its turns one after another; a column of
`joint` stands for a class and a turn, the turns of a class one after another.
"""

import math

TURNS = 4


def probabilities(scores, temperature=1.0):
    powers = [math.exp((score - max(scores)) / temperature) for score in scores]
    return [power / sum(powers) for power in powers]


def surprise(scores, label):
    return -math.log(probabilities(scores)[label])


def votes(joint, image, classes):
    """Of one image: for each class the mean of what the row of each turn says of the class in that turn."""
    rows = joint[TURNS * image : TURNS * (image + 1)]
    return [sum(row[TURNS * c + turn] for turn, row in enumerate(rows)) / TURNS for c in range(classes)]


def divergence(teacher, student, temperature):
    pairs = zip(probabilities(teacher, temperature), probabilities(student, temperature), strict=True)
    return sum(q * math.log(q / p) for q, p in pairs)


def objective(logits, joint, target, *, weight=1.0):
    """The terms of SLA, the student's own cross-entropy among them."""
    task = together = 0.0
    for image, label in enumerate(target):
        task += surprise(logits[image], label) / len(target)
        for turn in range(TURNS):
            together += surprise(joint[TURNS * image + turn], TURNS * label + turn) / (TURNS * len(target))
    return {"task": task, "joint": weight * together}


def distilled(logits, joint, temperature=1.0):
    """The further term of SLA-SD."""
    each = [divergence(votes(joint, i, len(row)), row, temperature) for i, row in enumerate(logits)]
    return {"kd": temperature**2 * sum(each) / len(each)}
