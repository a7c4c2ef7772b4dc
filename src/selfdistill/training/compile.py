"""torch.compile around a method's steps: where it pays, one graph for all of a run, and what making it cost.

A graph fits batches of one size. The last, smaller batch of an epoch runs uncompiled, and so does the one after it,
since a method may remember the last batch; all others share the graph. Which steps those are follows from the plan of
the epochs alone, so a resumed run compiles the same ones.
"""

import importlib.util
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..errors import reason

Way = Literal["default", "reduce-overhead"]  # torch.compile's words: fused kernels; and CUDA graphs of them

EARNS = 10_000  # optimiser steps of a run that earn back the minute or two that compiling takes
UNSTEADY = {"default": 1, "reduce-overhead": 3}  # first calls that compile, or record CUDA graphs


def way_of(setting: bool | str, device: torch.device, steps: int, *, accumulate: int = 1) -> Way | None:
    """How a run of so many optimiser `steps` is compiled under `machine.compile`; None: not at all.

    "auto" compiles on a GPU, where Triton is installed, from `EARNS` steps on. On a CPU it is never worth it: a step of
    FRSKD on CIFAR ResNets takes 0.9 to 1.3 times as long as without. Raises `ValueError` for "graphs" without a GPU or
    with micro-batches, whose gradients would lie in the memory that the next one overwrites.
    """
    if setting == "graphs":
        if device.type != "cuda":
            raise ValueError(f"machine.compile=graphs needs a CUDA GPU, and this run is on {device.type}; use auto")
        if accumulate > 1:
            raise ValueError(f"machine.compile=graphs takes no optim.accumulate={accumulate}; use true")
        return "reduce-overhead"
    if setting == "auto":
        pays = device.type == "cuda" and steps >= EARNS and importlib.util.find_spec("triton") is not None
        return "default" if pays else None
    return "default" if setting else None


def usual_ones(steps: Sequence[Sequence[int]], *, first_epoch: bool) -> list[list[bool]]:
    """Which of an epoch's micro-batches have the usual number of rows and follow one that has it too.

    `steps` holds the rows of each micro-batch of each step. The first epoch's first one follows none; that of any other
    follows the last, as all epochs have batches of the same sizes.

    >>> usual_ones([[8], [8], [3]], first_epoch=True), usual_ones([[8], [8], [3]], first_epoch=False)
    ([[False], [True], [False]], [[False], [True], [False]])
    >>> usual_ones([[4, 4], [4, 4]], first_epoch=False)
    [[True, True], [True, True]]
    """
    every = [rows for step in steps for rows in step]
    usual = statistics.mode(every)
    before = [0 if first_epoch else every[-1], *every]
    fits = iter([rows == usual == last for rows, last in zip(every, before, strict=False)])
    return [[next(fits) for _ in step] for step in steps]


class Compiler:
    """Runs the steps of one `fit`, those of usual batches compiled."""

    def __init__(self, method: nn.Module, way: Way | None, *, strict: bool) -> None:
        """Unless `strict`, a method that cannot be compiled runs uncompiled, and `failure` tells why."""
        self.method, self.way, self.strict = method, way, strict
        self.failure: str | None = None
        self.calls: Counter[bool] = Counter()  # of the graph for mixed labels, and of that for class numbers
        self.unsteady = False  # whether the last call compiled
        if way is not None:
            method.compile(fullgraph=True, dynamic=False, mode=way)

    def __call__(self, work: Callable[[], Any], *, usual: bool, mixed: bool) -> Any:
        """What `work` gives, which runs the method and its backward pass once, on such a batch.

        Raises `ValueError` in one sentence where a compilation fails that must not.
        """
        self.unsteady = False
        if self.way is None:
            return work()
        if not usual:
            with torch.compiler.set_stance("force_eager"):
                return work()
        self.calls[mixed] += 1
        self.unsteady = self.calls[mixed] <= UNSTEADY[self.way]
        return self.compiled(work, first=self.calls[mixed] == 1)

    def compiled(self, work: Callable[[], Any], *, first: bool) -> Any:
        from torch._dynamo.exc import TorchDynamoException

        try:
            done = self.first(work) if first else self.replayed(work)
        except TorchDynamoException as error:
            raise ValueError(f"{self.complaint(error)}; set machine.compile=false") from error
        if self.way == "reduce-overhead":
            keep_memory(self.method)
        return done

    def first(self, work: Callable[[], Any]) -> Any:
        """The first call of a graph; where it fails and that is allowed, the same once more, uncompiled."""
        parameters = dict(self.method.named_parameters())
        state = copied({name: value for name, value in self.method.state_dict().items() if name not in parameters})
        gpus = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(gpus):
            try:
                return self.replayed(work)
            except Exception as error:  # what a kernel raises on its first launch is its compiler's own
                if self.strict:
                    raise
                self.failure = f"{self.complaint(error)}; it runs uncompiled"
        self.close()
        self.method.load_state_dict(state, strict=False)  # a failed backward pass comes after the forward pass
        return work()

    def replayed(self, work: Callable[[], Any]) -> Any:
        if self.way == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()
        return work()

    def complaint(self, error: Exception) -> str:
        why = reason(error).partition(" Set TORCHDYNAMO_VERBOSE")[0]
        return f"{type(self.method).__name__} cannot be compiled ({why})"

    def close(self) -> None:
        """Gives the method back as it came, and lets go of the graphs: a process may train many methods."""
        if self.way is not None:
            self.way, self.method._compiled_call_impl = None, None
            torch.compiler.reset()


def keep_memory(method: nn.Module) -> None:
    """Copies what the method remembers of a step out of the memory that the next replay of CUDA graphs overwrites."""
    if type(method).get_extra_state is not nn.Module.get_extra_state:
        method.set_extra_state(copied(method.get_extra_state()))


def copied(state: Any) -> Any:
    """The same, with tensors of its own."""
    return tree_map(lambda value: value.clone() if isinstance(value, Tensor) else value, state)
