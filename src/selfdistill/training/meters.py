"""Running means of losses and accuracy between two log lines, and checks of what they say."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..task import Batch, Step, Task

DOMINATES = 100.0  # a term this many times the sum of all others leaves them no say


class Means(NamedTuple):
    """Means since the last log line."""

    losses: dict[str, float]  # each term, over the images
    accuracy: float  # over the labeled positions; NaN where none is labeled
    self_teacher_accuracy: float | None  # the same of the method's own teacher; None where it shows none
    level_distances: dict[str, float] | None = None  # parts of a feature loss, over the images; None without one


class Meter:
    """Sums over the images trained on since the last `flush`; tensors stay on the device until then.

    `epoch_counts` are those of the epoch so far: labels, and how many of them student and own teacher predict.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.images = 0
        self.epoch_counts: dict[str, float] = {}

    @torch.no_grad()
    def add(self, step: Step, batch: Batch, task: Task) -> None:
        """Adds one micro-batch: every term, times its images, and how many labels are predicted of those given."""
        images = len(step.logits)
        levels = step.level_distances or {}
        terms = torch.stack([*step.losses.values(), *levels.values()]).double() * images  # one kernel for all
        counts = [*task.count_correct(step.logits, batch.target, batch.soft_target)]
        names = [*(f"loss.{name}" for name in step.losses), *(f"level.{name}" for name in levels), "right", "labelled"]
        if step.teacher_logits is not None:
            seen = slice(len(step.teacher_logits))
            soft_target = None if batch.soft_target is None else batch.soft_target[seen]
            counts += task.count_correct(step.teacher_logits, batch.target[seen], soft_target)
            names += ["teacher_right", "teacher_labelled"]
        for name in names:
            if name not in self.sums:
                self.sums[name] = terms.new_zeros(())
        torch._foreach_add_([self.sums[name] for name in names], [*terms.unbind(), *counts])
        self.images += images

    def state_dict(self) -> dict[str, Any]:
        sums = {name: value.clone() for name, value in self.sums.items()}
        return sums | {"rows": torch.tensor(self.images), "epoch": dict(self.epoch_counts)}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device, *, keep: bool = True) -> None:
        """Continues from a `state_dict`; without `keep` from zero, where another process continues with these sums."""
        sums = {name: value.to(device, copy=True) for name, value in state.items() if name not in ("rows", "epoch")}
        self.sums = {name: value * keep for name, value in sums.items()}
        self.images = int(state.get("rows", 0)) * keep
        self.epoch_counts = dict(state.get("epoch", {}))  # older checkpoints hold none

    def collect(self, reduce: Callable[[Tensor], Tensor], *, keep: bool) -> None:
        """Moves the sums of all processes into the one process that is to `keep` them; the others start over.

        From then on, and until the next `add`, that process's checkpoint holds the sums of all.
        """
        names = list(self.sums)
        if not names:  # they were just flushed, by all processes
            return
        total = reduce(self._stack(names)) * keep
        self.sums = dict(zip(names, total[:-1].unbind(), strict=True))
        self.images = int(total[-1])

    def _stack(self, names: Sequence[str]) -> Tensor:
        """The sums, and behind them the number of images."""
        total = torch.stack([self.sums[name] for name in names])
        return torch.cat([total, total.new_full((1,), self.images)])

    def start_epoch(self) -> None:
        """Forgets the counts of the epoch before."""
        self.epoch_counts.clear()

    def flush(self, reduce: Callable[[Tensor], Tensor] | None = None) -> Means:
        """The means since the last call; then starts over.

        A position is an image, or a pixel where every pixel has a label. `reduce` adds up over processes.
        """
        names = list(self.sums)
        total = self._stack(names)
        values = dict(zip([*names, "rows"], (reduce(total) if reduce else total).tolist(), strict=True))
        self.sums, self.images = {}, 0
        images = values.pop("rows")
        losses, levels = (
            {name.removeprefix(kind): value / images for name, value in values.items() if name.startswith(kind)}
            for kind in ("loss.", "level.")
        )
        counts = {name: value for name, value in values.items() if not name.startswith(("loss.", "level."))}
        for name, value in counts.items():
            self.epoch_counts[name] = self.epoch_counts.get(name, 0.0) + value
        return Means(losses, *_compute_accuracies(counts), levels or None)

    def describe_teacher(self) -> str | None:
        """A sentence about an own teacher that was no better than the student in the epoch so far; else None."""
        accuracy, teacher_accuracy = _compute_accuracies(self.epoch_counts)
        if teacher_accuracy is None or not teacher_accuracy <= accuracy:
            return None
        return (
            f"in the last epoch the self-teacher was no better than the student ({teacher_accuracy:.1%} of "
            f"{self.epoch_counts['labelled']:,.0f} labels against {accuracy:.1%}), so its answers had little to teach"
        )


def _compute_accuracies(counts: Mapping[str, float]) -> tuple[float, float | None]:
    """The student's accuracy, NaN where nothing is labeled, and that of the own teacher, None where there is none."""
    labeled, teacher_labeled = counts.get("labelled"), counts.get("teacher_labelled")
    accuracy = counts["right"] / labeled if labeled else math.nan
    return accuracy, counts["teacher_right"] / teacher_labeled if teacher_labeled else None


def check_losses(losses: dict[str, float], *, in_warmup: bool = False) -> Iterator[tuple[str, str]]:
    """A key and a sentence for each term that is zero, not finite, or far above all others together.

    `in_warmup`: the method's terms may still be zero on purpose.
    """
    for name, value in losses.items():
        others = sum(abs(other) for key, other in losses.items() if key != name and math.isfinite(other))
        if not math.isfinite(value):
            yield (
                f"{name} finite",
                f"the loss term {name!r} is {value}: try a lower optim.lr, optim.clip, precision=fp32",
            )
        elif value == 0 and not in_warmup:
            yield f"{name} zero", f"the loss term {name!r} is exactly zero and teaches nothing"
        elif name != "task" and 0 < DOMINATES * others < abs(value):  # beside the labels, small terms are common
            yield (
                f"{name} dwarfs",
                f"the loss term {name!r} ({value:.3g}) dwarfs all others together ({others:.3g}); lower its weight",
            )
