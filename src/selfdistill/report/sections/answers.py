"""What was answered for images whose answer changed: one class, several, or a class for each pixel."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..evidence import Arm

MOST_NAMED = 3  # classes of an image that a sentence lists


class Change(NamedTuple):
    """An image whose answer changed: the share of the seeds that were right, or of the answers, or its mean IoU."""

    index: int
    before: float
    after: float


def find_changes(arm: Arm, baseline: Arm, seeds: Sequence[int]) -> list[Change]:
    """Images that more, or fewer, seeds of the arm have right than of the baseline; the surest change first."""
    own, others = ([which.outcomes[seed] for seed in seeds] for which in (arm, baseline))
    after, before = (
        np.mean([(one.predicted == one.label).numpy() for one in group], axis=0) for group in (own, others)
    )
    order = np.argsort(-np.abs(_average_probability(own) - _average_probability(others)), kind="stable")
    return [Change(int(i), float(before[i]), float(after[i])) for i in order if after[i] != before[i]]


def _average_probability(outcomes: Sequence[Any]) -> np.ndarray:
    """The probability of each image's label, mean over seeds."""
    return np.mean([np.exp(-one.nll.numpy()) for one in outcomes], axis=0)


def describe_change(change: Change, arm: Arm, baseline: Arm, seeds: Sequence[int], classes: Sequence[str]) -> list[str]:
    """The label of an image, what both arms say, and the probability of the label before and after."""
    own, others = ([which.outcomes[seed] for seed in seeds] for which in (arm, baseline))
    label = classes[int(own[0].label[change.index])]
    before, after = (_average_probability(group)[change.index] for group in (others, own))
    return [
        label,
        f"{baseline.name}: {_describe_answers(others, change.index, classes)}",
        f"{arm.name}: {_describe_answers(own, change.index, classes)}",
        f"probability of its label: {before:.0%} → {after:.0%}",
    ]


def _describe_answers(outcomes: Sequence[Any], index: int, classes: Sequence[str]) -> str:
    """How many seeds are right, and the most frequent wrong answer with its confidence; of one seed, its answer."""
    answers: dict[int, list[float]] = {}
    for one in outcomes:
        answers.setdefault(int(one.predicted[index]), []).append(float(one.confidence[index]))
    label, seeds = int(outcomes[0].label[index]), len(outcomes)
    wrong = sorted((k for k in answers if k != label), key=lambda k: -len(answers[k]))
    if seeds == 1:
        return ", ".join(f"{classes[k]} ({np.mean(answers[k]):.0%})" for k in answers)
    said = [f"{classes[k]} ({np.mean(answers[k]):.0%})" for k in wrong[:1]]
    said += [f"{len(wrong) - 1} more"] if len(wrong) > 1 else []
    return f"{len(answers.get(label, []))} of {seeds} right" + (f", else {' and '.join(said)}" if said else "")


class Answers(NamedTuple):
    """What the runs of one arm say of images that show any number of classes."""

    shown: np.ndarray  # (n, k), bool
    known: np.ndarray  # (n, k), bool: whether that is known
    said: np.ndarray  # (seeds, n, k), bool: which classes reach the thresholds of the run
    probability: np.ndarray  # (n,): the geometric mean over classes of the right answer's, mean over seeds


def read_answers(arm: Arm, seeds: Sequence[int]) -> Answers:
    runs = {run.seed: run for run in arm.runs if run.outcomes is not None}
    outcomes = [runs[seed].outcomes for seed in seeds]
    said = np.stack([runs[seed].said.numpy() for seed in seeds])
    shown = outcomes[0].shown.numpy()
    return Answers(shown > 0, shown >= 0, said, _average_probability(outcomes))


def find_label_changes(arm: Arm, baseline: Arm, seeds: Sequence[int]) -> list[Change]:
    """Images of which the arm has more, or fewer, answers right than the baseline; the surest change first."""
    own, others = (read_answers(which, seeds) for which in (arm, baseline))
    after, before = (((answers.said == answers.shown) & answers.known).mean(axis=(0, 2)) for answers in (own, others))
    order = np.argsort(-np.abs(own.probability - others.probability), kind="stable")
    return [Change(int(i), float(before[i]), float(after[i])) for i in order if after[i] != before[i]]


def describe_label_change(
    change: Change, arm: Arm, baseline: Arm, seeds: Sequence[int], classes: Sequence[str]
) -> list[str]:
    """The labels of an image, what both arms miss and add, and the probability of the answers before and after."""
    own, others = (read_answers(which, seeds) for which in (arm, baseline))
    before, after = (answers.probability[change.index] for answers in (others, own))
    shown = _list([name for name, is_shown in zip(classes, own.shown[change.index], strict=True) if is_shown]) or "none"
    unknown = int((~own.known[change.index]).sum())
    return [
        f"{shown}, {unknown} not known" if unknown else shown,
        f"{baseline.name}: {_describe_mistakes(others, change.index, classes)}",
        f"{arm.name}: {_describe_mistakes(own, change.index, classes)}",
        f"mean probability of its answers: {before:.0%} → {after:.0%}",
    ]


def _describe_mistakes(answers: Answers, index: int, classes: Sequence[str]) -> str:
    """The classes that an image shows and no run, or only some, found, and those that were seen though not there."""
    shown, share = answers.shown[index], answers.said[:, index].mean(axis=0)
    seeds = len(answers.said)
    sentences = []
    for word, wrong in (("misses", (1 - share) * shown), ("adds", share * (answers.known[index] & ~shown))):
        frequent = sorted(wrong.nonzero()[0], key=lambda k: -wrong[k])
        often = [classes[k] if seeds == 1 else f"{classes[k]} ({wrong[k] * seeds:.0f} of {seeds})" for k in frequent]
        sentences += [f"{word} {_list(often)}"] if often else []
    return "; ".join(sentences) or "all right"


def _list(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def find_mask_changes(arm: Arm, baseline: Arm, seeds: Sequence[int]) -> list[Change]:
    """Every image with its mean IoU over the classes in it, before and after, in [0, 1]."""
    after, before = (
        np.mean([_score_images(which.outcomes[seed]) for seed in seeds], axis=0) for which in (arm, baseline)
    )
    return [
        Change(index, float(b), float(a))
        for index, (b, a) in enumerate(zip(before, after, strict=True))
        if np.isfinite(a) and np.isfinite(b)
    ]


def _score_images(outcomes: Any) -> np.ndarray:
    """Mean IoU of each image over the classes that it or its prediction holds; NaN for an image without labels."""
    right, predicted, labeled = (
        values.numpy().astype(np.float64) for values in (outcomes.intersection, outcomes.predicted, outcomes.labeled)
    )
    union = predicted + labeled - right
    held = union > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(held, right / np.maximum(union, 1), 0).sum(1) / held.sum(1)
