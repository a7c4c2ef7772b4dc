"""Running means of losses and accuracy between two log lines, and checks of what they say."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from ..task import Batch, Step, Task

DOMINATES = 100.0  # a term this many times the sum of all others leaves them no say


class Meter:
    """Sums over the images trained on since the last `flush`; tensors stay on the device until then."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.images = 0

    @torch.no_grad()
    def add(self, step: Step, batch: Batch, task: Task) -> None:
        """Adds one micro-batch: every term, times its images, and how many labels are predicted of those given."""
        images = len(step.logits)
        terms = torch.stack(list(step.losses.values())).double() * images  # one kernel for all: each start costs time
        counts = torch.stack(task.count_correct(step.logits, batch.target, batch.soft_target))
        names = [*(f"loss.{name}" for name in step.losses), "right", "labelled"]
        for name in names:
            if name not in self.sums:
                self.sums[name] = terms.new_zeros(())
        torch._foreach_add_([self.sums[name] for name in names], [*terms.unbind(), *counts.unbind()])
        self.images += images

    def state_dict(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.sums.items()} | {"rows": torch.tensor(self.images)}

    def load_state_dict(self, state: Mapping[str, Tensor], device: torch.device, *, keep: bool = True) -> None:
        """Continues from a `state_dict`; without `keep` from zero, where another process continues with these sums."""
        sums = {name: value.to(device, copy=True) for name, value in state.items() if name != "rows"}
        self.sums = {name: value * keep for name, value in sums.items()}
        self.images = int(state.get("rows", 0)) * keep

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

    def flush(self, reduce: Callable[[Tensor], Tensor] | None = None) -> tuple[dict[str, float], float]:
        """The mean of each term over the images, and the accuracy over the labeled positions; then starts over.

        A position is an image, or a pixel where every pixel has a label. The accuracy is NaN where none is labeled.
        `reduce` adds up over processes.
        """
        names = list(self.sums)
        total = self._stack(names)
        values = dict(zip([*names, "rows"], (reduce(total) if reduce else total).tolist(), strict=True))
        self.sums, self.images = {}, 0
        images, labeled, correct = (values.pop(name) for name in ("rows", "labelled", "right"))
        accuracy = correct / labeled if labeled else math.nan
        return {name.removeprefix("loss."): value / images for name, value in values.items()}, accuracy


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
