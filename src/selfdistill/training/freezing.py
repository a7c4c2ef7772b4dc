"""Parts of the student that keep the weights they started from, all the time or at first."""

import fnmatch

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..config.recipe import StudentPart
from ..errors import did_you_mean
from ..method import Method


def find_frozen(student: nn.Module, patterns: list[str]) -> list[str]:
    """The parameters of the submodules that `student.freeze` names, in the student's order.

    Raises `ValueError` for a name that no submodule and no parameter has, and where nothing is left to train.
    """
    names = [name for name, _ in student.named_parameters()]
    frozen: set[str] = set()
    for pattern in patterns:
        chosen = {name for name in names if _is_in(name, pattern.removeprefix("-"))}
        if not chosen:
            modules = [name for name, _ in student.named_modules() if name]
            hint = did_you_mean(pattern.removeprefix("-"), [*modules, *names, "all"], otherwise="")
            children = ", ".join(name for name, _ in student.named_children())
            raise ValueError(
                f"student.freeze={pattern}: the student has no such part{hint}; it has {children}, and all is all of it"
            )
        frozen = frozen - chosen if pattern.startswith("-") else frozen | chosen
    if len(frozen) == len(names):
        raise ValueError(
            f"student.freeze={patterns} leaves nothing of the student to train; leave its last layer out, as in "
            f"student.freeze=[all,-{names[-1].rpartition('.')[0]}]"
        )
    return [name for name in names if name in frozen]


def _is_in(name: str, pattern: str) -> bool:
    return pattern == "all" or name.startswith(f"{pattern}.") or fnmatch.fnmatchcase(name, pattern)


class Freezing:
    """Freezes parts of a method's student, until the step where they begin to learn.

    What stays frozen needs no gradients. What is frozen at first has gradients that no optimizer sees, so that the
    graph of a compiled or shared step stays the same; its weights, its momentum and the statistics of its batch norms
    do not move.
    """

    def __init__(self, method: Method, part: StudentPart, steps: int) -> None:
        self.method, self.is_frozen = method, False
        names = [] if part.freeze is None else find_frozen(method.student, part.freeze)
        parameters = dict(method.student.named_parameters())
        self.parameters = [parameters[name] for name in names if parameters[name].requires_grad]
        self.norms = [
            module
            for module in method.student.modules()
            if isinstance(module, _BatchNorm) and (own := {*map(id, module.parameters())})
            if own <= {id(parameters[name]) for name in names}
        ]
        self.until = None if part.unfreeze_at is None else round(part.unfreeze_at * steps)
        if self.until is None:
            for parameter in self.parameters:
                parameter.requires_grad_(False)
        self.update(0)

    def update(self, step: int) -> None:
        """Freezes or frees what the optimizer step after so many needs to be."""
        is_frozen = bool(self.parameters) and (self.until is None or step < self.until)
        if is_frozen != self.is_frozen:
            self.is_frozen = is_frozen
            self.method.keep_in_eval_mode(self.norms if is_frozen else [])

    def drop_gradients(self) -> None:
        """Takes the gradients of what is frozen now from the optimizer."""
        if self.is_frozen:
            for parameter in self.parameters:
                parameter.grad = None

    def close(self) -> None:
        """Leaves a student that trains as a whole."""
        self.method.keep_in_eval_mode([])
        if self.until is None:
            for parameter in self.parameters:
                parameter.requires_grad_(True)
