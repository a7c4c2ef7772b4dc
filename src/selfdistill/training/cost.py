"""How long a training step takes beside that of the plain student, measured on a run's first steps."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from ..features.hooks import copy_without_hooks
from ..method import Method
from .profile import count_method_parameters
from .state import TrainState

FIRST, LAST = 2, 4  # the steps that are timed; the first one of a process takes longer
WORTH_IT = 50  # steps of a run; a shorter one is not timed, as this takes two of the plain student's steps

Autocast = Callable[[], AbstractContextManager]


class SlowdownMeter:
    """Times some steps of a run, and of each of its phases, and then its student alone; sets `state.slowdown`.

    A run whose first epoch is shorter than these steps is not timed, and neither is one, or a phase, that trains
    nothing beside the plain student.
    """

    def __init__(self, state: TrainState, *, autocast: Autocast) -> None:
        self.state, self.autocast = state, autocast
        self.is_wanted = min(state.last_step, WORTH_IT) == WORTH_IT and state.steps_per_epoch >= LAST
        self.is_wanted = self.is_wanted and costs_more(state.method)
        self.done, self.phase_end, self.started = 0, 0, 0.0

    def after_step(self, sizes: list[int]) -> None:
        """Called after each step, which had micro-batches of these sizes. Waits for the device before and after."""
        if self.state.phase_end != self.phase_end:
            self.phase_end, self.done, self.state.slowdown = self.state.phase_end, 0, None
        if self.state.step_in_epoch == 1 and self.done < LAST:  # scoring lies between two epochs
            self.done = 0
        self.done += 1
        if not self.is_wanted or self.state.method.trains_student_alone or not FIRST - 1 <= self.done <= LAST:
            return
        now = read_clock(self.state.device)
        if self.done == FIRST - 1:
            self.started = now
        if self.done == LAST:
            seconds = (now - self.started) / (LAST - FIRST + 1)
            alone = time_student(self.state.method, sizes[0], self.state.device, self.autocast)
            self.state.slowdown = None if alone is None else seconds / (alone * len(sizes))


def costs_more(method: Method) -> bool:
    """Whether a step can take longer than the plain student's: it has more networks, or shows more images."""
    has_more = method.teacher is not None or count_method_parameters(method)["training_only"] > 0
    return has_more or method.views > 0 or method.positives > 0


def time_student(method: Method, batch_size: int, device: torch.device, autocast: Autocast) -> float | None:
    """A forward and backward pass of a copy of the student by `read_clock`; None where it fails (want of memory)."""
    times = []
    try:
        student = copy_without_hooks(method.student).train()
        random = torch.Generator().manual_seed(0)
        noise = torch.rand(batch_size, *method.task.image_shape, generator=random, device="cpu").to(device)
        for _ in range(2):  # the first one takes longer
            started = read_clock(device)
            with autocast():
                scores = student(noise)
            scores.float().square().mean().backward()
            times.append(read_clock(device) - started)
    except Exception:  # a student may need what only its method gives it; measuring must not end a run
        return None
    return min(times)


def read_clock(device: torch.device) -> float:
    """Processor seconds of this process's threads on a CPU, which other programs do not lengthen; elsewhere seconds.

    Waits until a GPU has done what was asked of it.
    """
    if device.type == "cpu":
        return time.process_time()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
