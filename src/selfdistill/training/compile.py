"""torch.compile around a method's steps: when to compile, and one graph for the whole run, or for each of its phases.

A graph fits batches of one size. Where `data.drop_last` keeps the last, smaller batch of an epoch, it runs uncompiled,
and so does the one after it, since a method may remember the last batch. All others share the graph. The batch sizes of
the epochs alone decide which steps are compiled, so a resumed run compiles the same ones.
"""

import importlib.util
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..config.recipe import Recipe
from ..errors import one_line

Mode = Literal["default", "reduce-overhead"]  # torch.compile's: fused kernels; and CUDA graphs of them

MIN_STEPS = 10_000  # optimizer steps of a run that earn back the minute or two that compiling takes
WARMUP_CALLS = {"default": 1, "reduce-overhead": 3}  # first calls, which compile or record CUDA graphs


def choose_mode(
    setting: bool | str, device: torch.device, steps: int, *, accumulate: int = 1, diagnose: bool = False
) -> Mode | None:
    """torch.compile's mode for a run of so many optimizer `steps` under `machine.compile`; None: not compiled.

    "auto" compiles on a GPU, where Triton is installed, from `MIN_STEPS` steps on. On a CPU it never pays: a step of
    FRSKD on CIFAR ResNets takes 0.9 to 1.3 times as long as without. Raises `ValueError` for "graphs" without a GPU or
    with micro-batches, whose gradients would lie in the memory that the next one overwrites; and where it must compile
    and `diagnose` single terms, since compiled code has one gradient, of their sum.
    """
    if diagnose and setting != "auto" and setting:
        raise ValueError(
            f"diagnose takes the gradient of each term, and with machine.compile={setting} there is one, of their sum; "
            "use auto"
        )
    if setting == "graphs":
        if device.type != "cuda":
            raise ValueError(f"machine.compile=graphs needs a CUDA GPU, and this run is on {device.type}; use auto")
        if accumulate > 1:
            raise ValueError(f"machine.compile=graphs takes no optim.accumulate={accumulate}; use true")
        return "reduce-overhead"
    if setting == "auto":
        pays = device.type == "cuda" and steps >= MIN_STEPS and importlib.util.find_spec("triton") is not None
        pays = pays and not diagnose
        return "default" if pays else None
    return "default" if setting else None


def find_usual_batches(steps: Sequence[Sequence[int]], *, first_epoch: bool) -> list[list[bool]]:
    """Which micro-batches of an epoch have the usual size and follow one that has it too.

    `steps` holds the size of each micro-batch of each step. The first epoch's first one follows none; that of any other
    epoch follows the last, as all epochs have batches of the same sizes.

    >>> find_usual_batches([[8], [8], [3]], first_epoch=True), find_usual_batches([[8], [8], [3]], first_epoch=False)
    ([[False], [True], [False]], [[False], [True], [False]])
    >>> find_usual_batches([[4, 4], [4, 4]], first_epoch=False)
    [[True, True], [True, True]]
    """
    sizes = [size for step in steps for size in step]
    usual_size = statistics.mode(sizes)
    sizes_before = [0 if first_epoch else sizes[-1], *sizes]
    usual = iter([size == usual_size == before for size, before in zip(sizes, sizes_before, strict=False)])
    return [[next(usual) for _ in step] for step in steps]


class Compiler:
    """Runs the steps of one `fit`, compiled where their batch is a usual one."""

    def __init__(self, method: nn.Module, mode: Mode | None, *, strict: bool) -> None:
        """Unless `strict`, a method that cannot be compiled runs uncompiled, and `failure` says why."""
        self.method, self.mode, self.strict = method, mode, strict
        self.failure: str | None = None
        self.calls: Counter[tuple[str, bool]] = Counter()  # of each graph, by phase and whether labels are mixed
        self.just_compiled = False  # whether the last call compiled
        if mode is not None:
            method.compile(fullgraph=True, dynamic=False, mode=mode)

    def __call__(self, work: Callable[[], Any], *, usual: bool, mixed: bool, phase: str = "") -> Any:
        """The result of `work`, which runs the method and its backward pass once, on such a batch in this phase.

        Raises `ValueError` in one sentence where a compilation fails that must not.
        """
        self.just_compiled = False
        if self.mode is None:
            return work()
        if not usual:
            with torch.compiler.set_stance("force_eager"):
                return work()
        graph = phase, mixed
        self.calls[graph] += 1
        self.just_compiled = self.calls[graph] <= WARMUP_CALLS[self.mode]
        return self.run_compiled(work, first=self.calls[graph] == 1)

    def run_compiled(self, work: Callable[[], Any], *, first: bool) -> Any:
        from torch._dynamo.exc import TorchDynamoException

        try:
            result = self.run_first(work) if first else self.run_again(work)
        except TorchDynamoException as error:
            raise ValueError(f"{self.describe(error)}; set machine.compile=false") from error
        if self.mode == "reduce-overhead":
            clone_extra_state(self.method)
        return result

    def run_first(self, work: Callable[[], Any]) -> Any:
        """The first call of a graph; where it fails and that is allowed, the same once more, uncompiled."""
        parameters = dict(self.method.named_parameters())
        state = clone_tensors(
            {name: value for name, value in self.method.state_dict().items() if name not in parameters}
        )
        gpus = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
        with torch.random.fork_rng(gpus):
            try:
                return self.run_again(work)
            except Exception as error:  # the first launch of a kernel raises errors of its own compiler
                if self.strict:
                    raise
                self.failure = f"{self.describe(error)}; it runs uncompiled"
        self.close()
        self.method.load_state_dict(state, strict=False)  # a failed backward pass comes after the forward pass
        return work()

    def run_again(self, work: Callable[[], Any]) -> Any:
        if self.mode == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()
        return work()

    def describe(self, error: Exception) -> str:
        why = one_line(error).partition(" Set TORCHDYNAMO_VERBOSE")[0]
        return f"{type(self.method).__name__} cannot be compiled ({why})"

    def close(self) -> None:
        """Gives the method back uncompiled and frees the graphs: a process may train many methods."""
        if self.mode is not None:
            self.mode, self.method._compiled_call_impl = None, None
            torch.compiler.reset()


def create_compiler(method: nn.Module, recipe: Recipe, accelerator: Any, *, steps: int) -> Compiler:
    """Runs the method's steps in a run of so many, compiled or not."""
    setting = recipe.machine.compile
    diagnose, accumulate = recipe.diagnose is not None, recipe.optim.accumulate
    mode = choose_mode(setting, accelerator.device, steps, accumulate=accumulate, diagnose=diagnose)
    strict = setting != "auto" or accelerator.num_processes > 1  # other processes wait in the middle of the step
    return Compiler(method, mode, strict=strict)


def clone_extra_state(method: nn.Module) -> None:
    """Copies what the method remembers of a step out of the memory that the next replay of CUDA graphs overwrites."""
    if type(method).get_extra_state is not nn.Module.get_extra_state:
        method.set_extra_state(clone_tensors(method.get_extra_state()))


def clone_tensors(state: Any) -> Any:
    """The same nested values with copies of their tensors."""
    return tree_map(lambda value: value.clone() if isinstance(value, Tensor) else value, state)
