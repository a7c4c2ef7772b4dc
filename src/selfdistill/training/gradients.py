"""How each loss term pulls at the student's parameters: the share of its gradient, and its direction beside the task's.

`diagnose` in a recipe says how often a run measures it. The weights stay as they are: the gradients are taken from the
graph that the step's backward pass then uses.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

IDLE = 0.01  # mean share of the gradient norm, below which a term does nothing
OPPOSED = -0.2  # mean cosine with the task's gradient, below which a term works against it


class Pulls(NamedTuple):
    """The gradients of one step's terms; terms without a way to the student have no entry."""

    shares: dict[str, float]  # the norm of each term's gradient over the sum of these norms
    cosines: dict[str, float]  # of each term's gradient with that of "task", where neither is 0


class GradientMeter:
    """Measures the gradients of the loss terms, and adds up what it measured over the run."""

    def __init__(self) -> None:
        self.measured: Pulls | None = None  # until `take`
        self.sums: dict[str, dict[str, float]] = {"shares": {}, "cosines": {}}
        self.counts: dict[str, dict[str, int]] = {"shares": {}, "cosines": {}}

    def measure(
        self, losses: Mapping[str, Tensor], student: nn.Module, *, scale: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        """Takes the gradient of each term and keeps the graph; `scale` keeps those of fp16 from vanishing."""
        parameters = [parameter for parameter in student.parameters() if parameter.requires_grad]
        if not parameters:
            return
        names = sorted(losses, key="task".__ne__)  # the task first
        task, squares, products = None, {}, {}
        for name in names:
            gradient = _differentiate(losses[name], parameters, scale)
            if gradient is None:
                continue
            task = gradient if name == "task" else task
            squares[name] = _multiply(gradient, gradient)
            products[name] = squares[name].new_zeros(()) if task is None else _multiply(gradient, task)
        if squares:
            values = torch.stack([*squares.values(), *products.values()]).tolist()
            count = len(squares)
            norms = {name: value**0.5 for name, value in zip(squares, values[:count], strict=True)}
            self.measured = _compare(norms, dict(zip(products, values[count:], strict=True)), order=losses)

    def take(self) -> Pulls | None:
        """What was measured in this step, if anything, which is then added to the sums."""
        pulls, self.measured = self.measured, None
        for kind, values in ({} if pulls is None else pulls._asdict()).items():
            for name, value in values.items():
                self.sums[kind][name] = self.sums[kind].get(name, 0.0) + value
                self.counts[kind][name] = self.counts[kind].get(name, 0) + 1
        return pulls

    def mean(self, kind: str) -> dict[str, float]:
        """The mean "shares" or "cosines" of each term over what was measured."""
        return {name: value / self.counts[kind][name] for name, value in self.sums[kind].items()}

    def describe(self) -> Iterator[tuple[str, str]]:
        """A key and a sentence for each term that did nothing for the student, or that worked against the task."""
        for name, share in self.mean("shares").items():
            if share < IDLE:
                yield (
                    f"{name} idle",
                    f"the loss term {name!r} had {share:.2%} of the gradient norm at the student on average, so it did "
                    "nothing; raise its weight or leave it out",
                )
        for name, cosine in self.mean("cosines").items():
            if cosine < OPPOSED:
                yield (
                    f"{name} opposed",
                    f"the gradient of the loss term {name!r} pointed against that of the task (mean cosine "
                    f"{cosine:.2f}); lower its weight",
                )

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self.sums, "counts": self.counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.sums = {kind: dict(values) for kind, values in state["sums"].items()}
        self.counts = {kind: dict(values) for kind, values in state["counts"].items()}


def _differentiate(
    term: Tensor, parameters: Sequence[nn.Parameter], scale: Callable[[Tensor], Tensor] | None
) -> list[Tensor | None] | None:
    """The gradient of a term; None where it does not depend on the parameters."""
    if not term.requires_grad:
        return None
    gradient = torch.autograd.grad(scale(term) if scale else term, parameters, retain_graph=True, allow_unused=True)
    return None if all(part is None for part in gradient) else list(gradient)


def _multiply(one: Sequence[Tensor | None], other: Sequence[Tensor | None]) -> Tensor:
    """The inner product of two gradients, in float64."""
    pairs = [(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    device = next(part.device for part in one if part is not None)
    return sum((torch.sum(a * b, dtype=torch.float64) for a, b in pairs), start=torch.zeros((), device=device).double())


def _compare(norms: Mapping[str, float], products: Mapping[str, float], *, order: Mapping[str, Any]) -> Pulls:
    """Shares and cosines from the norms of gradients and their products with the task's."""
    total, task = sum(norms.values()), norms.get("task", 0.0)
    names = [name for name in order if name in norms]
    return Pulls(
        shares={name: norms[name] / total if total else 0.0 for name in names},
        cosines={name: products[name] / (norms[name] * task) for name in names if norms[name] and task},
    )
