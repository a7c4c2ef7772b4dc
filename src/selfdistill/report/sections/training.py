"""Learning curves: scores, learning rate, and every term of the loss."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from ...runs.records import EpochRecord, GradientRecord, ScheduleRecord, TrainRecord, WarningRecord
from ..elements import Element
from ..evidence import Arm, ArmRun, Evidence
from ..figures.curves import Curve, Points, draw_curves
from .blocks import captioned, figures, note, section

Read = Callable[[ArmRun], Points]  # the points of one run
MOST_TERMS = 12  # figures of loss terms


def draw_training(evidence: Evidence) -> Element | None:
    """Curves over epochs and steps, a line for each arm."""
    drawers = (_draw_scores, _draw_steps, _draw_terms, _draw_distances, _draw_gradients)
    drawn = [drawing for draw in drawers for drawing in draw(evidence)]
    if not drawn:
        return None
    seeds = max(len(arm.runs) for arm in evidence.arms)
    bands = "Lines are means over the seeds, and bands reach from the lowest seed to the highest." if seeds > 1 else ""
    lead = f"How the runs got there. {bands} Loss terms are shown as they were weighted."
    return section(
        "curves", "Learning curves", lead, [note(text) for text in list_warnings(evidence.runs)], figures(drawn)
    )


def list_warnings(runs: Sequence[ArmRun]) -> list[str]:
    """What the runs warned of, and schedules that were added to them.

    Sentences that differ in their numbers alone are told once, with how many runs had one.
    """
    alike: dict[str, list[str]] = {}
    for run in runs:
        texts = [record.text for record in run.records if isinstance(record, WarningRecord)]
        texts += [record.sentence() for record in run.records if isinstance(record, ScheduleRecord)]
        for pattern, text in {re.sub(r"[\d.]+", "", text): text for text in texts}.items():
            alike.setdefault(pattern, []).append(text)
    count = len(runs)
    return [texts[0] if count == 1 else f"{len(texts)} of {count} runs: {texts[0]}" for texts in alike.values()]


def _draw_scores(evidence: Evidence) -> Iterable[Element]:
    """The scores of the held-out images after each epoch."""
    columns = evidence.task.columns if evidence.task else ()
    for column in columns:
        read = _read_epochs(column.score, column.scale)
        yield from _draw(evidence.arms, read, f"held-out-{column.score}", f"Held out: {column.title}", "epoch")


def _draw_steps(evidence: Evidence) -> Iterable[Element]:
    yield from _draw(
        evidence.arms,
        _read_steps(lambda record: 100 * record.accuracy),
        "training-accuracy",
        "Training accuracy, %",
        "step",
        "of the augmented images, in training mode",
    )
    yield from _draw(
        evidence.arms,
        _read_steps(lambda record: record.self_teacher_accuracy and 100 * record.self_teacher_accuracy),
        "self-teacher-accuracy",
        "Self-teacher's accuracy, %",
        "step",
        "where it is no better than the student, there is nothing to learn from its answers",
    )
    yield from _draw(evidence.arms, _read_steps(lambda record: record.lr), "learning-rate", "Learning rate", "step")


def _draw_terms(evidence: Evidence) -> Iterable[Element]:
    terms = dict.fromkeys(
        name
        for run in evidence.runs
        for record in run.records
        if isinstance(record, TrainRecord)
        for name in record.losses
    )
    for term in [*terms][:MOST_TERMS]:
        read = _read_steps(lambda record, term=term: record.losses.get(term))
        yield from _draw(evidence.arms, read, f"loss-{term}", f"Loss term “{term}”", "step")


def _draw_distances(evidence: Evidence) -> Iterable[Element]:
    """How far the student's maps are from its self-teacher's, level by level."""
    for arm in evidence.arms:
        logs = [[record for record in run.records if isinstance(record, TrainRecord)] for run in arm.runs]
        if levels := _draw_parts(logs, lambda record: record.level_distances or {}):
            title = f"Distance from the self-teacher at each level: {arm.name}"
            caption = "parts of the feature loss, before its weight"
            yield captioned(draw_curves(levels, title, "step", "distance"), f"distance-{arm.name}", title, caption)


def _draw_gradients(evidence: Evidence) -> Iterable[Element]:
    """How strongly each loss term pulls at the student's parameters, and whether it pulls where the task does."""
    for arm in evidence.arms:
        logs = [[record for record in run.records if isinstance(record, GradientRecord)] for run in arm.runs]
        shares = _draw_parts(logs, lambda record: record.shares)
        if len(shares) > 1:
            title = f"Share of each term in the gradient: {arm.name}"
            caption = "norm at the student's parameters; a term near 0 does nothing"
            yield captioned(draw_curves(shares, title, "step", "share"), f"gradient-share-{arm.name}", title, caption)
        others = _draw_parts(logs, lambda record: {name: c for name, c in record.cosines.items() if name != "task"})
        if others:
            title = f"Direction of each term beside the task's: {arm.name}"
            caption = "cosine of the gradients; a term below 0 fights the task"
            yield captioned(draw_curves(others, title, "step", "cosine"), f"gradient-cosine-{arm.name}", title, caption)


def _draw_parts(logs: Sequence[Sequence[Any]], read: Callable[[Any], dict[str, float]]) -> list[Curve]:
    """A curve for each part that records name, from the records of each run."""
    parts = dict.fromkeys(part for log in logs for record in log for part in read(record))
    return [
        Curve(part, number, [[(float(r.step), read(r)[part]) for r in log if part in read(r)] for log in logs])
        for number, part in enumerate(parts, start=1)
    ]


def _draw(
    arms: Iterable[Arm], read: Read, name: str, title: str, x_title: str, caption: str | None = None
) -> Iterable[Element]:
    """A figure of what `read` finds in the runs; nothing where it finds nothing."""
    curves = [Curve(arm.name, arm.number, [read(run) for run in arm.runs]) for arm in arms]
    known = [curve for curve in curves if any(curve.seeds)]
    if known:
        yield captioned(draw_curves(known, title, x_title, title), name, title, caption)


def _read_steps(value: Callable[[TrainRecord], float | None]) -> Read:
    def read(run: ArmRun) -> Points:
        values = {record.step: value(record) for record in run.records if isinstance(record, TrainRecord)}
        return [(float(step), float(number)) for step, number in values.items() if number is not None]

    return read


def _read_epochs(score: str, scale: float) -> Read:
    def read(run: ArmRun) -> Points:
        records = [record for record in run.records if isinstance(record, EpochRecord) and record.scores is not None]
        values = {record.epoch: record.scores._asdict().get(score) for record in records}
        return [(float(epoch), scale * number) for epoch, number in values.items() if number is not None]

    return read
