"""The student's scores after each epoch, and the check that it is not broken."""

import torch

from ..data import get_scoring_window
from ..distributed import broadcast_buffers
from ..tasks import Scores, evaluate
from .experiment import Experiment
from .state import TrainState


def score_student(
    experiment: Experiment, state: TrainState, rank: int, world: int, *, precision: torch.dtype | None
) -> Scores | None:
    """Scores of the student that would ship now on the held-out images; None if there are none."""
    if experiment.held_out is None:
        return None
    task = state.method.task
    broadcast_buffers(state.shipped)
    return evaluate(
        state.shipped,
        experiment.held_out(rank=rank, world=world, device=state.device),
        num_classes=task.num_classes,
        kind=task.kind,
        ignore_index=task.ignore_index,
        window=get_scoring_window(experiment.recipe.data),
        device=state.device,
        precision=precision,
    )


def refuse_broken_student(state: TrainState, lr: float | None) -> None:
    """Raises `ValueError` where a weight or a score is NaN or infinite: no step mends that, and none may ship."""
    values = (*state.method.parameters(), *state.method.buffers())
    scores_are_finite = state.scores is None or state.scores.finite
    if not scores_are_finite or not all(bool(value.isfinite().all()) for value in values):
        raise ValueError(
            f"the network's values became NaN or infinite before step {state.step}; lower optim.lr, now {lr}, or the "
            "weights of the loss terms, set optim.clip, or use precision=fp32"
        )
