"""The student's scores after each epoch, and the check that it is not broken."""

import torch
from torch import nn

from ..data import get_scoring_window
from ..distributed import broadcast_buffers
from ..errors import one_line
from ..features.hooks import copy_without_hooks
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
