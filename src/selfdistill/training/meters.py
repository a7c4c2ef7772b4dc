"""Bookkeeping of loss terms between two log lines, and what their values say of a run's health."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..task import Step

DWARFS = 100.0  # a term this many times the sum of all others leaves them no say


class Meter:
    """Running sums over the rows trained on since the last `flush`; tensors stay on the device until then."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.rows = 0

    @torch.no_grad()
    def add(self, step: Step, target: Tensor, void: int = -100, soft_target: Tensor | None = None) -> None:
        """Counts one micro-batch in: every term, weighed by its rows, and the accuracy of whatever is not `void`."""
        rows = len(step.logits)
        terms = torch.stack(list(step.losses.values())).double() * rows  # together: a GPU is told what to do one by one
        counts = torch.stack([right(step.logits, target, soft_target), labelled(target, void, soft_target)]).double()
        names = [*(f"loss.{name}" for name in step.losses), "right", "labelled"]
        for name in names:
            if name not in self.sums:
                self.sums[name] = terms.new_zeros(())
        torch._foreach_add_([self.sums[name] for name in names], [*terms.unbind(), *counts.unbind()])
        self.rows += rows

    def state(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.sums.items()} | {"rows": torch.tensor(self.rows)}

    def load(self, state: dict[str, Tensor], device: torch.device) -> None:
        self.sums = {name: value.to(device, copy=True) for name, value in state.items() if name != "rows"}
        self.rows = int(state.get("rows", 0))

    def flush(self, reduce: Callable[[Tensor], Tensor] | None = None) -> tuple[dict[str, float], float]:
        """Mean of each term over the rows, and the share of the labelled positions that are right; then starts over.

        A position is a row, or a pixel of it where every pixel has a label. The share is nan where none is labelled.
        `reduce` adds up over processes.
        """
        names = list(self.sums)
        total = torch.stack(list(self.sums.values()))
        total = torch.cat([total, total.new_full((1,), self.rows)])
        values = dict(zip([*names, "rows"], (reduce(total) if reduce else total).tolist(), strict=True))
        self.sums, self.rows = {}, 0
        rows, positions, hits = (values.pop(name) for name in ("rows", "labelled", "right"))
        accuracy = hits / positions if positions else math.nan
        return {name.removeprefix("loss."): value / rows for name, value in values.items()}, accuracy


def right(logits: Tensor, target: Tensor, soft_target: Tensor | None = None) -> Tensor:
    """How many positions are classified rightly, (); against mixed labels, the share of the label that was named."""
    named = logits.argmax(dim=1)
    if soft_target is not None:
        return soft_target.gather(1, named[:, None]).sum()
    return (named == target).sum()


def labelled(target: Tensor, void: int, soft_target: Tensor | None = None) -> Tensor:
    """How many positions have a label, (); class probabilities, along dim 1, are one of each position."""
    if soft_target is not None:
        return torch.ones_like(soft_target[:, 0]).sum()
    return (target != void).sum()


def warnings(losses: dict[str, float], *, asleep: bool = False) -> Iterator[tuple[str, str]]:
    """Pairs of a key and a sentence, one for each term that is zero, not finite, or far above all others together.

    `asleep`: the method is still in its warm-up, where zero is intended.
    """
    for name, value in losses.items():
        others = sum(abs(other) for key, other in losses.items() if key != name and math.isfinite(other))
        if not math.isfinite(value):
            yield (
                f"{name} finite",
                f"the loss term {name!r} is {value}: try a lower optim.lr, optim.clip, precision=fp32",
            )
        elif value == 0 and not asleep:
            yield f"{name} zero", f"the loss term {name!r} is exactly zero and teaches nothing"
        elif name != "task" and 0 < DWARFS * others < abs(value):  # small lessons beside the labels' are common
            yield (
                f"{name} dwarfs",
                f"the loss term {name!r} ({value:.3g}) dwarfs all others together ({others:.3g}); lower its weight",
            )
