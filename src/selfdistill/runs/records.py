"""The lines of metrics.jsonl as types."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, TypeAdapter, ValidationError

from ..metrics.evaluation import restore_scores
from .files import describe_problem, parse_json


def read_scores(value: Any) -> Any:
    """The scores that a mapping of names and values describes; anything else as it is."""
    return restore_scores(value) if isinstance(value, Mapping) else value


AnyScores = Annotated[
    Any,  # the scores of the run's task, or None where nothing was held out
    BeforeValidator(read_scores),
    PlainSerializer(lambda scores: scores if scores is None else scores._asdict()),
]


class Record(BaseModel):
    """One line of metrics.jsonl; `epoch` counts from 1, `step` counts optimizer steps."""

    model_config = ConfigDict(frozen=True)

    def sentence(self) -> str:
        """The record for people, on one line."""
        raise NotImplementedError


class TrainRecord(Record):
    """Means over the steps since the last such record."""

    kind: Literal["train"] = "train"
    epoch: int
    step: int
    lr: float
    losses: dict[str, float]  # each term as it was weighted
    accuracy: float  # share of the labeled positions, in [0, 1]; NaN where there are none
    self_teacher_accuracy: float | None = None  # the same of the method's own teacher; None where it has none
    level_distances: dict[str, float] | None = None  # parts of the feature loss by map, before its weight
    seconds_per_step: float

    def sentence(self) -> str:
        terms = "  ".join(f"{name} {value:.4g}" for name, value in self.losses.items())
        teacher = self.self_teacher_accuracy
        own_teacher = "" if teacher is None else f"  self-teacher {teacher:.1%}"
        return (
            f"epoch {self.epoch}  step {self.step}  {terms}  accuracy {self.accuracy:.1%}{own_teacher}  "
            f"lr {self.lr:.3g}  {1000 * self.seconds_per_step:.0f} ms/step"
        )


class GradientRecord(Record):
    """How each loss term pulls at the student's parameters, in one step."""

    kind: Literal["gradients"] = "gradients"
    epoch: int
    step: int
    shares: dict[str, float]  # the norm of each term's gradient over the sum of these norms
    cosines: dict[str, float]  # of each term's gradient with that of "task"; only where both are not zero

    def sentence(self) -> str:
        terms = [
            f"{name} {share:.1%}" + (f" (cosine {self.cosines[name]:+.2f})" if name in self.cosines else "")
            for name, share in self.shares.items()
        ]
        return f"epoch {self.epoch}  step {self.step}  gradient norms: {'  '.join(terms)}"


class EpochRecord(Record):
    """Scores of the student that would ship, after an epoch."""

    kind: Literal["epoch"] = "epoch"
    epoch: int
    step: int
    split: str
    scores: AnyScores

    def sentence(self) -> str:
        return f"epoch {self.epoch}  step {self.step}  {self.split}: {self.scores.sentence()}"


class Parameters(BaseModel):
    """How many values a method holds."""

    model_config = ConfigDict(frozen=True)
    student: int  # those that ship
    training_only: int  # a frozen teacher's aside


class EndRecord(Record):
    """The end of a run. What older versions did not measure is None.

    Seconds are of the whole run, over resumes; what a kill undid is not counted.
    """

    kind: Literal["end"] = "end"
    split: str
    scores: AnyScores  # after the last step; None where nothing is held out
    epoch: int
    step: int
    seconds_per_step: float
    peak_memory_mib: float | None = None
    compile_seconds: float = 0.0
    parameters: Parameters
    train_seconds: float | None = None  # wall clock of the training steps; scoring and saving lie between them
    eval_seconds: float | None = None  # wall clock of all scoring
    processor_seconds: float | None = None  # of the training steps on a CPU: this process and its loader workers
    device_seconds: float | None = None  # of the training steps on a GPU: from a step's first kernel to its last
    cost_per_step: float | None = None  # processor or device seconds of a step: see `training/timer.py`
    train_scores: AnyScores = None  # on training images without augmentation; of at most 2,000
    test_scores: AnyScores = None  # on the test images, where `split` is "val" and there are any
    temperature: float | None = None  # with the lowest NLL on `split`
    nll_at_temperature: float | None = None  # on `split`
    test_nll_at_temperature: float | None = None  # on the test images, at the temperature of "val"

    def sentence(self) -> str:
        where = f"epoch {self.epoch}  step {self.step}"
        if self.scores is None:
            return f"{where}  end: nothing held out to score"
        compiled = f"  compiled in {self.compile_seconds:.0f} s" if self.compile_seconds else ""
        test = f"  test: {self.test_scores.sentence()}" if self.test_scores is not None else ""
        return f"{where}  final {self.split}: {self.scores.sentence()}{test}{compiled}"


class WarningRecord(Record):
    """Something that a user should look at."""

    kind: Literal["warning"] = "warning"
    epoch: int
    step: int
    text: str

    def sentence(self) -> str:
        return f"epoch {self.epoch}  step {self.step}  warning: {self.text}"


class ScheduleRecord(Record):
    """The begin of a schedule that was added to a run after its end."""

    kind: Literal["schedule"] = "schedule"
    epoch: int  # epochs done
    step: int
    last_step: int  # of the added schedule

    def sentence(self) -> str:
        return f"epoch {self.epoch}  step {self.step}  goes on with a new schedule, up to step {self.last_step}"


AnyRecord = TrainRecord | EpochRecord | EndRecord | WarningRecord | GradientRecord | ScheduleRecord
ADAPTER: TypeAdapter[AnyRecord] = TypeAdapter(Annotated[AnyRecord, Field(discriminator="kind")])


def to_line(record: Record) -> bytes:
    """The record as a line of JSON."""
    return json.dumps(record.model_dump()).encode() + b"\n"


def from_line(line: bytes, number: int, path: Path) -> AnyRecord:
    """The record of a line; raises `ValueError` that names a damaged one."""
    try:
        return ADAPTER.validate_python(parse_json(line))
    except ValidationError as error:
        raise ValueError(f"line {number} of {path} is damaged: {describe_problem(error)}") from None
    except ValueError:
        raise ValueError(f"line {number} of {path} is damaged: it is not JSON") from None
