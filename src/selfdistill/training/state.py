"""TrainState: where a training run is; and Result: how it ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from ..method import Method
from ..tasks import Scores
from .gradients import GradientMeter
from .meters import Meter
from .timer import StepTimer


@dataclass
class TrainState:
    """What a run trains and how far it is. Callbacks get it, to read; a checkpoint holds what the rest depends on.

    The random generators and the learning-rate schedule follow from `step`, so they need no state.
    """

    method: Method  # as the user knows it, without accelerate's wrapper
    optimizer: Any
    ema: Any  # timm's ModelEmaV3, or None
    scaler: Any  # of fp16 gradients, or None
    device: torch.device
    steps_per_epoch: int
    last_step: int  # training stops after this many optimizer steps
    epoch: int = 0  # whole epochs trained
    step: int = 0  # optimizer steps done
    step_in_epoch: int = 0
    best_score: float | None = None  # on the validation images so far, by `best_by`; higher is better
    since_best: int = 0  # scorings of the validation images since then
    meter: Meter = field(default_factory=Meter)
    timer: StepTimer = field(default_factory=StepTimer)
    gradients: GradientMeter = field(default_factory=GradientMeter)
    eval_seconds: float = 0.0  # of all scoring so far; NaN where an older version did some
    is_collected: bool = True  # whether `meter` holds the sums of all processes, as a checkpoint must
    slowdown: float | None = None  # of a step of this phase beside the plain student's, see `training/cost.py`
    phases: Mapping[str, range] = field(default_factory=dict)  # the steps of each phase of the method
    scores: Scores | None = None  # of `shipped` after this step; None before the epoch is scored, or where it is not
    thresholds: tuple[float, ...] | None = None  # of the same, chosen on the validation images; None: the task has none
    is_best: bool = False  # whether `scores` are the best so far

    @property
    def epochs_begun(self) -> int:
        """Epochs trained, one that is not finished included."""
        return self.epoch + (self.step_in_epoch > 0)

    @property
    def phase_end(self) -> int:
        """The number of steps done at the end of the phase in which the last step was, or of training."""
        ends = (steps.stop for steps in self.phases.values() if self.step - 1 in steps)
        return next(ends, self.last_step)

    @property
    def shipped(self) -> nn.Module:
        """The network that the user gets: the student, or its moving average."""
        return self.method.student if self.ema is None else self.ema.module


class Result(NamedTuple):
    """The end of a run."""

    scores: Scores | None  # of the student that ships, on the held-out images, after the last step
    epoch: int  # epochs trained, one that was begun included
    step: int
    seconds_per_step: float  # median over the log's lines, input included; of several phases the mean by steps
    peak_memory_mib: float | None
    compile_seconds: float  # by which the steps that compiled were slower than that; 0 where nothing was compiled
    train_seconds: float | None  # this and what follows: see `runs.records.EndRecord`
    eval_seconds: float | None
    processor_seconds: float | None
    device_seconds: float | None
    cost_per_step: float | None
    train_scores: Scores | None
    test_scores: Scores | None
    temperature: float | None
    nll_at_temperature: float | None
    test_nll_at_temperature: float | None
