"""Checks that a device computes what the CPU computes, in one graph, without making the host wait.

    python benchmarks/checks.py --device cuda --methods frskd,sla

Prints one sentence per check. `agrees`: losses and gradients of one step in float32 equal those of the same step on the
CPU. `one graph`: the method compiles as a whole, and not again when progress changes. `no wait`: no step makes the host
wait for the GPU, as CUDA's own check reports.
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

from harness import Setting, Stepper, add_device, build_method, draw_batch, move_batch
from report import run_main
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


class CheckFailed(Exception):
    """What a check found wrong, in one sentence."""


def list_checks(methods: Sequence[str]) -> list[str]:
    """The names of all checks: two of the whole package, and those of each method with each of its tasks."""
    pairs = [(name, kind) for name in methods for kind in list_tasks(find_method(name).outputs)]
    return ["golden", "fit", *(f"{check}: {name}, {kind}" for name, kind in pairs for check in CHECKS)]


def run_check(check: str, device: torch.device) -> str:
    """Runs one of the checks that `list_checks` names; raises `CheckFailed` if the device fails it."""
    if check == "golden":
        return run_golden_tests()
    if check == "fit":
        return fit_without_waiting(device)
    check_name, _, rest = check.partition(": ")
    name, _, kind = rest.partition(", ")
    try:
        method, batch = create_small_method(name, kind)
    except ModuleNotFoundError as error:
        return f"left out: {error.name} is not installed"
    with disable_tf32():
        return CHECKS[check_name](method, batch, device)


def report_check(check: str, device: torch.device) -> str:
    """Runs a check and says what it found, in one sentence; a failed check does not stop the others."""
    try:
        return run_check(check, device)
    except CheckFailed as failure:
        return f"WRONG: {failure}"
    except Exception as error:
        return f"WRONG: {type(error).__name__}: {' '.join(str(error).split())[:300]}"


def create_small_method(name: str, kind: str) -> tuple[Method, Batch]:
    """A method around a small student, and a batch for it; the same at every call."""
    student, size = STUDENTS[kind]
    task = Task(kind, CLASSES, (3, size, size), num_examples=ROWS)  # type: ignore[arg-type]
    method_class = find_method(name)
    torch.manual_seed(0)
    method = build_method(name, student, task).train()
    return method, draw_batch(task, ROWS, views=method_class.views, positives=method_class.positives)


@contextmanager
def disable_tf32() -> Iterator[None]:
    """Computes in full float32 inside the block, without TF32."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def take_step(method: Method, batch: Batch, *, seed: int = 0) -> tuple[dict[str, float], dict[str, torch.Tensor]]:
    """Loss terms and gradients of one step."""
    device = next(method.parameters()).device
    torch.manual_seed(seed)
    step = method(move_batch(batch, device), torch.tensor(0.9, device=device))
    step.loss.backward()
    gradients = {name: p.grad.cpu() for name, p in method.named_parameters() if p.grad is not None}
    return {term: value.item() for term, value in step.losses.items()}, gradients


def compare_with_cpu(method: Method, batch: Batch, device: torch.device) -> str:
    method_on_device = copy.deepcopy(method).to(device)
    losses_of_other_seed = take_step(copy.deepcopy(method), batch, seed=1)[0]
    losses, gradients = take_step(method, batch)
    device_losses, device_gradients = take_step(method_on_device, batch)
    if losses != losses_of_other_seed:
        total = sum(device_losses.values())
        return f"draws random numbers, which differ between devices; its loss there is {total:.4g}"
    worst_loss = max(abs(device_losses[term] - value) / max(abs(value), 1e-3) for term, value in losses.items())
    if worst_loss > LOSS:
        raise CheckFailed(f"a loss term differs by {worst_loss:.2g} of itself")
    scale = max(value.norm() for value in gradients.values())
    worst, name = max(((device_gradients[name] - value).norm() / scale, name) for name, value in gradients.items())
    if worst > GRADIENT:
        raise CheckFailed(f"the gradient of {name} differs by {worst:.2g} of the largest")
    return f"losses within {worst_loss:.1g}, gradients within {worst:.1g}"


def check_one_graph(method: Method, batch: Batch, device: torch.device) -> str:
    """Compiles with the front end alone, which decides on graphs; overhead.py --compile tries the whole compiler."""
    from torch._dynamo import config
    from torch._dynamo.testing import CompileCounterWithBackend

    torch.compiler.reset()
    method, batch, counter = method.to(device), move_batch(batch, device), CompileCounterWithBackend("eager")
    if type(method).get_extra_state is not nn.Module.get_extra_state:
        method(
            batch, torch.tensor(0.0, device=device)
        )  # a method that remembers the last batch runs another graph in its first step
    compiled = torch.compile(method, fullgraph=True, dynamic=False, backend=counter)
    with config.patch(error_on_recompile=True):
        for progress in (0.0, 0.3, 0.9):
            compiled(batch, torch.tensor(progress, device=device)).loss.backward()
    if counter.frame_count != 1:
        raise CheckFailed(f"{counter.frame_count} graphs")
    return f"{counter.op_count} operations"


def check_no_wait(method: Method, batch: Batch, device: torch.device) -> str:
    task = method.task
    setting = Setting(task.kind, ROWS, task.image_shape[1], CLASSES, device, "bf16", "false", True, 1)
    stepper = Stepper(method, batch, setting)
    stepper.step()
    stepper.step()
    with refuse_waits(device):
        stepper.step()
    return "as it must" if device.type == "cuda" else "nothing to wait for"


CHECKS: dict[str, Callable[[Method, Batch, torch.device], str]] = {
    "agrees": compare_with_cpu,
    "one graph": check_one_graph,
    "no wait": check_no_wait,
}


@contextmanager
def refuse_waits(device: torch.device) -> Iterator[None]:
    """Raises `CheckFailed` if the host waits for the GPU inside the block."""
    set_sync_debug(device, refuse=True)
    try:
        yield
    except RuntimeError as error:
        raise CheckFailed(" ".join(str(error).split())[:300]) from error
    finally:
        set_sync_debug(device, refuse=False)


def set_sync_debug(device: torch.device, *, refuse: bool) -> None:
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error" if refuse else "default")


class WaitRefuser(Callback):
    """Lets waits raise between the third and the eighth step, where the loop logs nothing."""

    def __init__(self, device: torch.device) -> None:
        self.refuse = functools.partial(set_sync_debug, device)

    def on_step(self, state: TrainState) -> None:
        if state.step in (3, 8):
            self.refuse(refuse=state.step == 3)


def fit_without_waiting(device: torch.device) -> str:
    """Runs the whole training loop on images on the device: loading, mixing, optimizer and meter too."""
    words = ["data=digits", "data.limit=320", "student=cifar:resnet8", "method=frskd", "batch_size=32", "epochs=1"]
    experiment = build(read(None, [*words, f"machine.device={device.type}", "machine.compile=false"]))
    try:
        fit(replace(experiment, held_out=None, train_sample=None), callbacks=[WaitRefuser(device)])
    except RuntimeError as error:
        raise CheckFailed(" ".join(str(error).split())[:300]) from error
    finally:
        set_sync_debug(device, refuse=False)
    return "as it must" if device.type == "cuda" else "nothing to wait for"


def run_golden_tests() -> str:
    """Runs the tests that compare with the authors' numbers."""
    if importlib.util.find_spec("pytest") is None:
        return "left out: pytest is not installed"
    command = [
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
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    last_line = (process.stdout.strip().splitlines() or [process.stderr.strip()[-300:]])[-1]
    if process.returncode:
        raise CheckFailed(last_line)
    return last_line


def main(words: list[str] | None = None) -> dict[str, str]:
    """Runs the checks of the methods, and prints what each found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add_device(parser)
    parser.add_argument("--methods", type=lambda text: text.split(","), default=list_methods())
    options: Any = parser.parse_args(words)
    findings = {}
    for check in list_checks(options.methods):
        findings[check] = report_check(check, options.device)
        print(f"{check}: {findings[check]}", flush=True)
    return findings


if __name__ == "__main__":
    run_main(main)
