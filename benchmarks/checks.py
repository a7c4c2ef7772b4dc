"""Checks that a device computes what the CPU computes, in one graph, without making the host wait.

    python benchmarks/checks.py --device cuda --methods frskd,sla

Prints one sentence per check. `golden`: the authors' numbers, in float64. `agrees`: losses and gradients of one step
are those of the CPU in float64, exactly in float64 and about in float32. `one graph`: the method compiles as a whole,
and not again when progress changes. `no wait`: no step makes the host wait for the GPU, as CUDA's own check reports.
`fit`: nor does the training loop. `resume`: a run that was stopped and resumed ends with the weights of one that was
not.
"""

import argparse
import copy
import functools
import importlib.util
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import nn

from harness import Setting, Stepper, add_device, build_method, draw_batch, move_batch
from report import run_main
from selfdistill import Batch, Method, Task, list_methods
from selfdistill.build import build
from selfdistill.commands.cards import list_tasks_of
from selfdistill.config.read import read
from selfdistill.methods import find_method
from selfdistill.runs.folder import Run
from selfdistill.tasks import find_task
from selfdistill.training.callbacks import Callback
from selfdistill.training.loop import fit
from selfdistill.training.signals import Interrupted
from selfdistill.training.state import TrainState

STUDENTS = {"image": ("cifar:resnet8", 16), "pixel": ("smp:Unet/resnet18", 32)}  # by what a score belongs to
ROWS, CLASSES = 8, 10
EXACT = 1e-8  # largest relative difference in float64
LOSS, GRADIENT = (
    1e-3,
    0.05,
)  # and in float32: a ReLU or a maximum that rounding turns over moves a gradient by per cents
ROOT = Path(__file__).parents[1]


class CheckFailed(Exception):
    """What a check found wrong, in one sentence."""


def list_checks(methods: Sequence[str]) -> list[str]:
    """The names of all checks: some of the whole package, and those of each method with each of its tasks."""
    pairs = [(name, kind) for name in methods for kind in list_tasks_of(find_method(name))]
    return [*WHOLE, *(f"{check}: {name}, {kind}" for name, kind in pairs for check in CHECKS)]


def run_check(check: str, device: torch.device) -> str:
    """Runs one of the checks that `list_checks` names; raises `CheckFailed` if the device fails it."""
    if check in WHOLE:
        return WHOLE[check](device)
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
    student, size = STUDENTS[find_task(kind).output]
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


class Outcome(NamedTuple):
    """What a step computed."""

    losses: dict[str, float]
    gradients: dict[str, torch.Tensor]  # on the CPU


class Difference(NamedTuple):
    """How far two outcomes are apart."""

    loss: float  # largest of a term, of itself
    gradient: float  # largest of a parameter, of the largest gradient
    parameter: str  # which that is


def take_step(method: Method, batch: Batch, device: torch.device, dtype: torch.dtype, *, seed: int = 0) -> Outcome:
    """Takes one step on the device, in this precision, without changing the method."""
    method = copy.deepcopy(method).to(device, dtype)
    batch = Batch(*(value.to(dtype) if is_float(value) else value for value in move_batch(batch, device)))
    torch.manual_seed(seed)
    step = method(batch, torch.tensor(0.9, device=device))
    step.loss.backward()
    gradients = {name: p.grad.double().cpu() for name, p in method.named_parameters() if p.grad is not None}
    return Outcome({term: value.item() for term, value in step.losses.items()}, gradients)


def is_float(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def measure_difference(outcome: Outcome, other: Outcome) -> Difference:
    loss = max(abs(other.losses[term] - value) / max(abs(value), 1e-3) for term, value in outcome.losses.items())
    scale = max(value.norm() for value in outcome.gradients.values())
    gradients = {
        name: ((other.gradients[name] - value).norm() / scale).item() for name, value in outcome.gradients.items()
    }
    parameter = max(gradients, key=gradients.__getitem__)
    return Difference(loss, gradients[parameter], parameter)


def compare_with_cpu(method: Method, batch: Batch, device: torch.device) -> str:
    cpu, single, double = torch.device("cpu"), torch.float32, torch.float64
    exact = take_step(method, batch, cpu, double)
    if exact.losses != take_step(method, batch, cpu, double, seed=1).losses:
        total = sum(take_step(method, batch, device, single).losses.values())
        return f"draws random numbers, which differ between devices; its loss there is {total:.4g}"
    sentences = []
    for name, dtype, loss_limit, gradient_limit in (
        ("float64", double, EXACT, EXACT),
        ("float32", single, LOSS, GRADIENT),
    ):
        found = measure_difference(exact, take_step(method, batch, device, dtype))
        sentences.append(f"{name}: losses within {found.loss:.1g}, gradients within {found.gradient:.1g}")
        if found.loss > loss_limit or found.gradient > gradient_limit:
            raise CheckFailed(f"{sentences[-1]}, most in {found.parameter}")
    return "; ".join(sentences)


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


class Stopper(Callback):
    """Stops a training as a kill by SIGTERM does, after so many steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, state: TrainState) -> None:
        if state.step == self.step:
            signal.raise_signal(signal.SIGTERM)


def resume_to_equal_weights(device: torch.device) -> str:
    """Trains a run without a stop, and one that is stopped in the middle of its second epoch and resumed."""
    with tempfile.TemporaryDirectory() as folder:
        whole, again, stopped = (Path(folder, name) for name in ("whole", "again", "stopped"))
        train_small_run(whole, device)
        train_small_run(stopped, device, stop_at=15)
        difference = compare_students(whole, stopped)
        if difference == 0:
            return "equal, bit for bit"
        train_small_run(again, device)
        usual = compare_students(whole, again)
    if usual == 0 or difference > 10 * usual:
        raise CheckFailed(f"the weights differ by {difference:.2g}; those of two runs without a stop by {usual:.2g}")
    return f"differs by {difference:.1g}; two runs without a stop differ by {usual:.1g}"


def train_small_run(path: Path, device: torch.device, *, stop_at: int | None = None) -> None:
    words = ["data=digits", "data.limit=320", "student=cifar:resnet8", "method=frskd", "batch_size=32", "epochs=3"]
    recipe = read(None, [*words, f"machine.device={device.type}", f"out={path}"])
    experiment = build(recipe)
    run = Run.create(path, experiment.recipe)
    if stop_at is None:
        fit(experiment, run)
        return
    try:
        fit(experiment, run, callbacks=[Stopper(stop_at)])
    except Interrupted:
        fit(build(recipe), run, resume=True)
    else:
        raise CheckFailed(f"the run ended before step {stop_at}, where it was to be stopped")


def compare_students(first: Path, second: Path) -> float:
    """The largest difference of two runs' weights, as a share of the largest weight."""
    weights, others = (load_file(path / "student.safetensors") for path in (first, second))
    scale = max(value.abs().max().item() for value in weights.values())
    return max((weights[name].double() - others[name].double()).abs().max().item() for name in weights) / scale


def run_golden_tests(device: torch.device) -> str:
    """Runs the tests that compare with the authors' numbers, on the device."""
    if importlib.util.find_spec("pytest") is None:
        return "left out: pytest is not installed"
    script = "import sys, pytest, torch; torch.set_default_device(sys.argv[1]); sys.exit(pytest.main(sys.argv[2:]))"
    options = ["-q", "-o", "addopts=", "-o", "filterwarnings=", "-p", "no:cacheprovider"]
    command = [sys.executable, "-c", script, str(device), *options, "tests/methods/test_golden.py"]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = process.stdout.strip().splitlines() or [process.stderr.strip()[-300:]]
    if process.returncode:
        raise CheckFailed("; ".join(line for line in lines if line.startswith(("FAILED", "ERROR")))[:600] or lines[-1])
    return lines[-1]


WHOLE: dict[str, Callable[[torch.device], str]] = {
    "golden": run_golden_tests,
    "fit": fit_without_waiting,
    "resume": resume_to_equal_weights,
}


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
