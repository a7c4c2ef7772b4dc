"""Learning curves: scores, learning rate, and every term of the loss."""

from collections.abc import Callable, Iterable

from ...runs.records import EpochRecord, GradientRecord, TrainRecord, WarningRecord
from ..elements import Element
from ..evidence import Arm, ArmRun, Evidence
from ..figures.curves import Curve, Points, draw_curves
from .blocks import captioned, figures, note, section

Read = Callable[[ArmRun], Points]  # the points of one run
MOST_TERMS = 12  # figures of loss terms


def draw_training(evidence: Evidence) -> Element | None:
    """Curves over epochs and steps, a line for each arm."""
    drawn = [*_draw_scores(evidence), *_draw_steps(evidence), *_draw_terms(evidence), *_draw_gradients(evidence)]
    if not drawn:
        return None
    warnings = dict.fromkeys(
        record.text for run in evidence.runs for record in run.records if isinstance(record, WarningRecord)
    )
    seeds = max(len(arm.runs) for arm in evidence.arms)
    bands = "Lines are means over the seeds, and bands reach from the lowest seed to the highest." if seeds > 1 else ""
    lead = f"How the runs got there. {bands} Loss terms are shown as they were weighted."
    return section("curves", "Learning curves", lead, [note(text) for text in warnings], figures(drawn))


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
        "where it is no better than the student, there is nothing to learn from it",
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


def _draw_gradients(evidence: Evidence) -> Iterable[Element]:
    """What each loss term pulls with at the student's parameters, and whether it pulls where the task does."""
    for arm in evidence.arms:
        share = _draw_pulls(arm, lambda record: record.shares)
        if share:
            title = f"Share of each term in the gradient: {arm.name}"
            caption = "norm at the student's parameters; a term near 0 does nothing"
            yield captioned(draw_curves(share, title, "step", "share"), f"gradient-share-{arm.name}", title, caption)
        cosine = _draw_pulls(arm, lambda record: record.cosines)
        if cosine:
            title = f"Direction of each term beside the task's: {arm.name}"
            caption = "cosine of the gradients; a term below 0 fights the task"
            yield captioned(draw_curves(cosine, title, "step", "cosine"), f"gradient-cosine-{arm.name}", title, caption)


def _draw_pulls(arm: Arm, read: Callable[[GradientRecord], dict[str, float]]) -> list[Curve]:
    """A curve for each term."""
    logs = [[record for record in run.records if isinstance(record, GradientRecord)] for run in arm.runs]
    terms = dict.fromkeys(term for log in logs for record in log for term in read(record))
    return [
        Curve(term, number, [[(r.step, read(r)[term]) for r in log if term in read(r)] for log in logs])
        for number, term in enumerate(terms, start=1)
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
        values = {record.epoch: getattr(record.scores, score, None) for record in records}
        return [(float(epoch), scale * number) for epoch, number in values.items() if number is not None]

    return read
