"""The student's scores after epochs and at the end of a run, and the check that it is not broken."""

import time
from typing import NamedTuple

import torch
from torch import nn

from ..data import get_scoring_window
from ..distributed import broadcast_buffers
from ..errors import one_line
from ..features.hooks import copy_without_hooks
from ..tasks import Collector, Scores, evaluate, find_task
from .experiment import Experiment, HeldOut
from .state import TrainState


class FinalScores(NamedTuple):
    """What is measured once, after the last step; None where there is nothing to measure it on."""

    train_scores: Scores | None = None
    test_scores: Scores | None = None
    temperature: float | None = None
    nll_at_temperature: float | None = None
    test_nll_at_temperature: float | None = None


class StudentScoring:
    """Scores the student that would ship now: after epochs, and on further images after the last step.

    Then `collectors` hold what it answered for each image of a split.
    """

    def __init__(
        self, experiment: Experiment, state: TrainState, *, rank: int, world: int, precision: torch.dtype | None
    ) -> None:
        self.experiment, self.state = experiment, state
        self.rank, self.world, self.precision = rank, world, precision
        self.collectors: dict[str, Collector] = {}

    def score_held_out(self) -> tuple[Scores | None, tuple[float, ...] | None]:
        """The scores on the held-out images, and the thresholds that suit them, where the task has any.

        None if there are no such images. After the last step their answers are kept. Thresholds are chosen on
        validation images alone.
        """
        split, kind = self.experiment.split, find_task(self.state.method.task.kind)
        chooses = kind.chooses_thresholds and split == "val"
        is_last = self.state.step == self.state.last_step
        scores = self._score(self.experiment.held_out, keep_as=split if is_last or chooses else None)
        if scores is None or not chooses:
            return scores, None
        sample = self.collectors[split].sample(self.state.device)
        return scores, kind.choose_thresholds(sample) if sample.is_finite else None

    def finish(self) -> FinalScores:
        """Measures what is measured once; the held-out images were scored just before."""
        train_scores = self._score(self.experiment.train_sample)
        test_scores = self._score(self.experiment.test, keep_as="test", thresholds=self.state.thresholds)
        samples = {split: collector.sample(self.state.device) for split, collector in self.collectors.items()}
        finite = {split: sample for split, sample in samples.items() if sample.is_finite}
        held_out = finite.get(self.experiment.split)
        if held_out is None:
            return FinalScores(train_scores, test_scores)
        temperature = held_out.fit_temperature()
        test = finite.get("test") if test_scores is not None else None
        return FinalScores(
            train_scores,
            test_scores,
            temperature,
            held_out.nll_at(temperature),
            None if test is None else test.nll_at(temperature),
        )

    def _score(
        self, images: HeldOut | None, *, keep_as: str | None = None, thresholds: tuple[float, ...] | None = None
    ) -> Scores | None:
        """The scores on these images; their answers are kept under the name of a split, if one is given."""
        if images is None:
            return None
        state, task, started = self.state, self.state.method.task, time.perf_counter()
        collector = None if keep_as is None else find_task(task.kind).outcomes(task.num_classes, task.ignore_index)
        if keep_as is not None and collector is not None:
            self.collectors[keep_as] = collector
        broadcast_buffers(state.shipped)
        scores = evaluate(
            state.shipped,
            images(rank=self.rank, world=self.world, device=state.device),
            num_classes=task.num_classes,
            kind=task.kind,
            ignore_index=task.ignore_index,
            window=get_scoring_window(self.experiment.recipe.data),
            device=state.device,
            precision=self.precision,
            collector=collector,
            thresholds=thresholds,
        )
        state.eval_seconds += time.perf_counter() - started
        return scores


def refuse_broken_student(state: TrainState, lr: float | None) -> None:
    """Raises `ValueError` where a weight or a score is NaN or infinite: no step mends that, and none may ship."""
    values = (*state.method.parameters(), *state.method.buffers())
    scores_are_finite = state.scores is None or state.scores.finite
    if not scores_are_finite or not all(bool(value.isfinite().all()) for value in values):
        raise ValueError(
            f"the network's values became NaN or infinite before step {state.step}; lower optim.lr, now {lr}, or the "
            "weights of the loss terms, set optim.clip, or use precision=fp32"
        )


def blame_precision(
    error: Exception, student: nn.Module, image_shape: tuple[int, int, int], *, precision: torch.dtype | None
) -> ValueError | None:
    """The error for a student that runs in float32 and not in the run's precision; None where it runs in both."""
    if precision is None or runs_in(precision, student, image_shape) or not runs_in(None, student, image_shape):
        return None
    name = {torch.bfloat16: "bf16", torch.float16: "fp16"}[precision]
    return ValueError(f"the student runs in float32 and not in {name} ({one_line(error)}); set precision=fp32")


def runs_in(precision: torch.dtype | None, student: nn.Module, image_shape: tuple[int, int, int]) -> bool:
    """Whether a copy of the student trains on two images, and scores them, under autocast to `precision`."""
    device = next((parameter.device for parameter in student.parameters()), torch.device("cpu"))
    try:
        twin, images = copy_without_hooks(student), torch.rand(2, *image_shape, device=device)
        with torch.autocast(device.type, dtype=precision, enabled=precision is not None):
            logits = twin.train()(images)
            with torch.no_grad():
                twin.eval()(images)
        logits.float().square().sum().backward()
    except Exception:  # other people's code
        return False
    return True
