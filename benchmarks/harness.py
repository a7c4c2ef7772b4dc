"""One training step as the trainer takes it, on data that is already on the device, and how long it takes.

A step is forward, backward, SGD with momentum and `after_step`: loading, augmenting and logging are not in it. What is
compared takes turns, so that whatever else the machine does falls on all of it.
"""

import argparse
import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from selfdistill import Batch, Method, Task, create_method
from selfdistill.config.recipe import OptimPart
from selfdistill.methods import find_method
from selfdistill.models import build_student
from selfdistill.runs.environment import describe_environment
from selfdistill.training.compile import Compiler, choose_mode
from selfdistill.training.memory import keep_freed_memory
from selfdistill.training.optim import create_optimizer

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
COMPILED: dict[str, Any] = {"false": False, "true": True, "graphs": "graphs"}  # as machine.compile has them
WARM_UP = 2  # turns: the first allocates, and finds no memory of an earlier batch
LATE = 0.9  # share of training done: every ramp is over
TINY_STEPS = OptimPart(lr=1e-6)  # on noise, nothing is to be learned nor to diverge


class Setting(NamedTuple):
    """What a step is measured under."""

    kind: str
    batch: int
    size: int  # height and width of the images, pixels
    classes: int
    device: torch.device
    precision: str
    compile: str  # false | true | graphs: CUDA graphs besides
    channels_last: bool
    threads: int
    examples: int = 0  # rows of the training set; 0: as many as the batch has

    @property
    def task(self) -> Task:
        shape = (3, self.size, self.size)
        return Task(self.kind, self.classes, shape, num_examples=self.examples or self.batch)  # type: ignore[arg-type]

    @property
    def steps_per_turn(self) -> int:
        """A GPU is asked for several steps before it is waited for, as in training."""
        return 20 if self.device.type == "cuda" else 1

    def told(self) -> str:
        """The machine and what its steps have in common, in words."""
        ways = [self.precision, f"{self.size}x{self.size} images", "channels_last" * self.channels_last]
        ways.append({"false": "", "true": "compiled", "graphs": "compiled, CUDA graphs"}[self.compile])
        return ", ".join([chip(self.device), threads(self.threads), f"torch {torch.__version__}", *filter(None, ways)])


def chip(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else describe_environment().cpu or "unknown CPU"


def threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def at_least(least: int) -> Callable[[str], int]:
    """Reads a whole number of the command line."""

    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return int(text)

    return number


def device(text: str) -> torch.device:
    """Reads a device of the command line."""
    try:
        found = torch.device(text)
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"{text} is no device; take cpu or cuda") from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError(f"{text} is not there: torch finds no GPU; take cpu")
    return found


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", type=device, default="cuda" if torch.cuda.is_available() else "cpu")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that make a `Setting`, see `setting_of`."""
    parser.add_argument("--task", dest="kind", choices=["classification", "segmentation"], default="classification")
    parser.add_argument("--size", type=at_least(1), default=32, help="height and width of the images")
    parser.add_argument("--batch", type=at_least(2), default=32)
    parser.add_argument("--classes", type=at_least(2), default=100)
    parser.add_argument("--threads", type=at_least(1), default=torch.get_num_threads())
    add_device(parser)
    parser.add_argument("--precision", choices=[*PRECISIONS], default="fp32")
    parser.add_argument("--compile", choices=[*COMPILED], default="false")
    parser.add_argument("--channels-last", action=argparse.BooleanOptionalAction, default=True)


def setting_of(given: argparse.Namespace) -> Setting:
    """The setting that the command line asks for; its threads and the trainer's way with memory hold from here on."""
    torch.set_num_threads(given.threads)
    if given.device.type == "cpu":
        keep_freed_memory()
    return Setting(**{name: getattr(given, name) for name in Setting._fields if hasattr(given, name)})


class Loss(NamedTuple):
    loss: Tensor


class UserModule(nn.Module):
    """A network with its training objective from a file of the user's, called as a method is."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.student = net

    def forward(self, batch: Batch, progress: Tensor) -> Loss:
        return Loss(self.student(batch.images, batch.target))

    def after_step(self) -> None: ...


def foreign(path: Path, student: str, task: Task) -> UserModule:
    """What `build(student, num_classes, image_shape)` of the file gives: a module (images, labels) -> loss, ()."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return UserModule(module.build(student, task.num_classes, task.image_shape))


def made(name: str, student: str, task: Task) -> Method:
    """The method around a new student, with an untrained teacher of the same kind where it needs one."""
    kind = find_method(name)
    net = build_student(student, num_classes=task.num_classes, image_shape=task.image_shape, output=task.output)
    other = made(kind.teacher_method or "baseline", student, task) if kind.needs_teacher else None
    return create_method(name, net, task, teacher=other if kind.teacher_method or other is None else other.student)


def random_batch(task: Task, rows: int, *, views: int = 0, positives: int = 0) -> Batch:
    """A batch of random images and labels."""
    shape = task.image_shape
    further = [torch.randn(rows, count, *shape) if count else None for count in (views, positives)]
    target = torch.randint(task.num_classes, (rows, *task.positions))
    return Batch(torch.randn(rows, *shape), target, None, torch.arange(rows), *further)


def moved(batch: Batch, device: torch.device) -> Batch:
    return Batch(*(None if part is None else part.to(device) for part in batch))


class Stepper:
    """Takes training steps of a module that is called as a method is."""

    def __init__(
        self,
        module: Any,
        batch: Batch,
        setting: Setting,
        *,
        wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
    ) -> None:
        self.module, self.setting, device = module.to(setting.device).train(), setting, setting.device
        self.batch = moved(batch, device)
        if setting.channels_last:
            module.to(memory_format=torch.channels_last)
            images = self.batch.images.contiguous(memory_format=torch.channels_last)
            self.batch = self.batch._replace(images=images)
        self.called = wrap(module)
        self.optimizer = create_optimizer(module, TINY_STEPS)
        self.progress = torch.tensor(LATE, device=device)
        self.compiler: Compiler | None = None

    def compile(self) -> float:
        """Compiles the module as the setting says; seconds of the first steps beyond those of later ones."""
        mode = choose_mode(COMPILED[self.setting.compile], self.setting.device, 0)
        if mode is None:
            return 0.0
        self.compiler = Compiler(self.module, mode, strict=True)
        first, *others = (self.seconds(1) for _ in range(4))
        return first - min(others)

    def close(self) -> None:
        """Lets go of every compiled graph, also those of other steppers."""
        if self.compiler is not None:
            self.compiler.close()

    def backward(self) -> None:
        precision = PRECISIONS[self.setting.precision]
        with torch.autocast(self.setting.device.type, precision, enabled=precision != torch.float32):
            loss = self.called(self.batch, self.progress).loss
        loss.backward()

    def step(self) -> None:
        if self.compiler is None:
            self.backward()
        else:
            self.compiler(self.backward, usual=True, mixed=False)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.module.after_step()

    def seconds(self, steps: int) -> float:
        """Seconds of one of so many steps."""
        self.wait()
        started = time.perf_counter()
        for _ in range(steps):
            self.step()
        self.wait()
        return (time.perf_counter() - started) / steps

    def wait(self) -> None:
        if self.setting.device.type == "cuda":
            torch.cuda.synchronize(self.setting.device)


def stepper(name: str, student: str, setting: Setting) -> Stepper:
    """Of a method of the package, or "package.module:Class", or of the user's own file, `PATH.py`."""
    task = setting.task
    if name.endswith(".py"):
        return Stepper(foreign(Path(name), student, task), random_batch(task, setting.batch), setting)
    kind = find_method(name)
    batch = random_batch(task, setting.batch, views=kind.views, positives=kind.positives)
    return Stepper(made(name, student, task), batch, setting)


def time_in_turns(steppers: Sequence[Stepper], turns: int) -> list[list[float]]:
    """Seconds per step of each stepper at each of its turns, after a warm-up."""
    rounds = [[each.seconds(each.setting.steps_per_turn) for each in steppers] for _ in range(WARM_UP + turns)]
    return [list(seconds) for seconds in zip(*rounds[WARM_UP:], strict=True)]


class Spread(NamedTuple):
    """A median between its quartiles."""

    low: float
    median: float
    high: float

    def told(self, form: str = ".2f") -> str:
        return f"{self.median:{form}} ({self.low:{form}} to {self.high:{form}})"


def spread(values: Sequence[float]) -> Spread:
    return Spread(*statistics.quantiles(values, n=4, method="inclusive"))
