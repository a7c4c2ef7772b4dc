"""Whether a device computes what the CPU does, in one graph, without making the host wait: one sentence each.

    python benchmarks/checks.py --device cuda --methods frskd,sla

`agrees`: losses and gradients of one step in float32, against the same step on the CPU. `one graph`: compiled as a
whole, and not again when progress changes. `no wait`: no step makes the host wait for the GPU, by CUDA's own word.
"""

import argparse
import copy
import functools
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness import Setting, Stepper, add_device, made, moved, random_batch
from report import ended
from selfdistill import Batch, Method, Task, list_methods
from selfdistill.build import build
from selfdistill.config.read import read
from selfdistill.methods import find_method
from selfdistill.tasks import list_tasks
from selfdistill.training.callbacks import Callback
from selfdistill.training.loop import fit
from selfdistill.training.state import TrainState

STUDENTS = {"classification": ("cifar:resnet8", 16), "segmentation": ("smp:Unet/resnet18", 32)}
ROWS, CLASSES = 8, 10
LOSS, GRADIENT = 1e-4, 2e-3  # largest relative difference: of a loss term, of a gradient's norm
ROOT = Path(__file__).parents[1]


class Unlike(Exception):
    """What a check found wrong, in one sentence."""


def names(methods: Sequence[str]) -> list[str]:
    """The checks that there are: what the package as a whole must do, and each method by task."""
    every = [(name, kind) for name in methods for kind in list_tasks(find_method(name).outputs)]
    return ["golden", "fit", *(f"{check}: {name}, {kind}" for name, kind in every for check in CHECKS)]


def checked(check: str, device: torch.device) -> str:
    """Carries out one of the `names`; raises `Unlike` where something is not as it must be."""
    if check == "golden":
        return golden()
    if check == "fit":
        return fit_without_waiting(device)
    way, _, rest = check.partition(": ")
    name, _, kind = rest.partition(", ")
    try:
        method, batch = small(name, kind)
    except ModuleNotFoundError as error:
        return f"left out: {error.name} is not installed"
    with exact():
        return CHECKS[way](method, batch, device)


def told(check: str, device: torch.device) -> str:
    """What a check found, in one sentence; a failure is no reason to leave out the others."""
    try:
        return checked(check, device)
    except Unlike as unlike:
        return f"WRONG: {unlike}"
    except Exception as error:
        return f"WRONG: {type(error).__name__}: {' '.join(str(error).split())[:300]}"


def small(name: str, kind: str) -> tuple[Method, Batch]:
    """A method around a small student, and a batch for it; the same at every call."""
    student, size = STUDENTS[kind]
    task, found = Task(kind, CLASSES, (3, size, size), num_examples=ROWS), find_method(name)  # type: ignore[arg-type]
    torch.manual_seed(0)
    method = made(name, student, task).train()
    return method, random_batch(task, ROWS, views=found.views, positives=found.positives)


@contextmanager
def exact() -> Iterator[None]:
    """float32 as such: no TF32 inside."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def one_step(method: Method, batch: Batch, *, seed: int = 0) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Loss terms and gradients of one step."""
    device = next(method.parameters()).device
    torch.manual_seed(seed)
    step = method(moved(batch, device), torch.tensor(0.9, device=device))
    step.loss.backward()
    gradients = {name: p.grad.cpu() for name, p in method.named_parameters() if p.grad is not None}
    return {term: value.item() for term, value in step.losses.items()}, gradients


def compare_with_cpu(method: Method, batch: Batch, device: torch.device) -> str:
    there = copy.deepcopy(method).to(device)
    other_draw = one_step(copy.deepcopy(method), batch, seed=1)[0]
    losses, gradients = one_step(method, batch)
    theirs, others = one_step(there, batch)
    if losses != other_draw:
        return f"draws random numbers, which differ between devices; its loss there is {sum(theirs.values()):.4g}"
    worst_loss = max(abs(theirs[term] - value) / max(abs(value), 1e-3) for term, value in losses.items())
    if worst_loss > LOSS:
        raise Unlike(f"a loss term differs by {worst_loss:.2g} of itself")
    scale = max(value.norm() for value in gradients.values())
    worst, name = max(((others[name] - value).norm() / scale, name) for name, value in gradients.items())
    if worst > GRADIENT:
        raise Unlike(f"the gradient of {name} differs by {worst:.2g} of the largest")
    return f"losses within {worst_loss:.1g}, gradients within {worst:.1g}"


def one_graph(method: Method, batch: Batch, device: torch.device) -> str:
    """By the compiler's front end alone, which decides on graphs; overhead.py --compile tries what follows."""
    from torch._dynamo import config
    from torch._dynamo.testing import CompileCounterWithBackend

    torch.compiler.reset()
    method, batch, counter = method.to(device), moved(batch, device), CompileCounterWithBackend("aot_eager")
    if type(method).get_extra_state is not nn.Module.get_extra_state:
        method(batch, torch.tensor(0.0, device=device))  # what remembers the last batch has a first step of its own
    compiled = torch.compile(method, fullgraph=True, dynamic=False, backend=counter)
    with config.patch(error_on_recompile=True):
        for progress in (0.0, 0.3, 0.9):
            compiled(batch, torch.tensor(progress, device=device)).loss.backward()
    if counter.frame_count != 1:
        raise Unlike(f"{counter.frame_count} graphs")
    return f"{counter.op_count} operations"


def no_wait(method: Method, batch: Batch, device: torch.device) -> str:
    task = method.task
    setting = Setting(task.kind, ROWS, task.image_shape[1], CLASSES, device, "bf16", "false", True, 1)
    stepper = Stepper(method, batch, setting)
    stepper.step()
    stepper.step()
    with refusing_waits(device):
        stepper.step()
    return "as it must" if device.type == "cuda" else "nothing to wait for"


CHECKS: dict[str, Callable[[Method, Batch, torch.device], str]] = {
    "agrees": compare_with_cpu,
    "one graph": one_graph,
    "no wait": no_wait,
}


@contextmanager
def refusing_waits(device: torch.device) -> Iterator[None]:
    """Inside, whatever makes the host wait for the GPU raises."""
    set_sync_debug(device, refuse=True)
    try:
        yield
    except RuntimeError as error:
        raise Unlike(" ".join(str(error).split())[:300]) from error
    finally:
        set_sync_debug(device, refuse=False)


def set_sync_debug(device: torch.device, *, refuse: bool) -> None:
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error" if refuse else "default")


class Strict(Callback):
    """Refuses waiting between the third step and the eighth, where the loop logs nothing."""

    def __init__(self, device: torch.device) -> None:
        self.refuse = functools.partial(set_sync_debug, device)

    def on_step(self, state: TrainState) -> None:
        if state.step in (3, 8):
            self.refuse(refuse=state.step == 3)


def fit_without_waiting(device: torch.device) -> str:
    """The whole loop on images that lie on the device: loading, mixing, optimiser and meter too."""
    words = ["data=digits", "data.limit=320", "student=cifar:resnet8", "method=frskd", "batch_size=32", "epochs=1"]
    experiment = build(read(None, [*words, f"machine.device={device.type}", "machine.compile=false"]))
    try:
        fit(replace(experiment, held_out=None), callbacks=[Strict(device)])
    except RuntimeError as error:
        raise Unlike(" ".join(str(error).split())[:300]) from error
    finally:
        set_sync_debug(device, refuse=False)
    return "as it must" if device.type == "cuda" else "nothing to wait for"


def golden() -> str:
    """The authors' numbers, by the tests that hold them."""
    if importlib.util.find_spec("pytest") is None:
        return "left out: pytest is not installed"
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-o",
        "addopts=",
        "-p",
        "no:cacheprovider",
        "tests/methods/test_golden.py",
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    last = (done.stdout.strip().splitlines() or [done.stderr.strip()[-300:]])[-1]
    if done.returncode:
        raise Unlike(last)
    return last


def main(words: list[str] | None = None) -> dict[str, str]:
    """Carries out the checks of some methods, and prints what each found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_device(parser)
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list_methods())
    given: Any = parser.parse_args(words)
    found = {}
    for check in names(given.methods):
        found[check] = told(check, given.device)
        print(f"{check}: {found[check]}", flush=True)
    return found


if __name__ == "__main__":
    ended(main)
