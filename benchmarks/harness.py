"""Takes and times training steps as the trainer takes them, on data that is already on the device.

A step is forward, backward, SGD with momentum and `after_step`, without loading, augmentation and logging. Steps that
are compared take turns, so that other work of the machine slows all of them.
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
from selfdistill.tasks import list_tasks
from selfdistill.training.compile import Compiler, choose_mode
from selfdistill.training.memory import keep_freed_memory
from selfdistill.training.optim import create_optimizer

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
COMPILED: dict[str, Any] = {"false": False, "true": True, "graphs": "graphs"}  # as machine.compile has them
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
WARM_UP = 2  # turns; the first one allocates memory, and a method that remembers a batch has none yet
LATE = 0.9  # share of training that is done; every ramp is over by then
TINY_STEPS = OptimPart(lr=1e-6)  # on noise there is nothing to learn, and training must not diverge


class Setting(NamedTuple):
    """The conditions under which a step is measured."""

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
    clock: str = "wall"  # wall | processor

    @property
    def task(self) -> Task:
        shape = (3, self.size, self.size)
        return Task(self.kind, self.classes, shape, num_examples=self.examples or self.batch)  # type: ignore[arg-type]

    @property
    def steps_per_turn(self) -> int:
        """How many steps are started before the device is waited for: several on a GPU, as in training."""
        return 20 if self.device.type == "cuda" else 1

    def describe(self) -> str:
        """The machine and what all measured steps share, in words."""
        options = [self.precision, f"{self.size}x{self.size} images", "channels_last" * self.channels_last]
        options.append("processor time" * (self.clock == "processor"))
        options.append({"false": "", "true": "compiled", "graphs": "compiled, CUDA graphs"}[self.compile])
        machine = [describe_chip(self.device), describe_threads(self.threads), f"torch {torch.__version__}"]
        return ", ".join([*machine, *filter(None, options)])


def describe_chip(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else describe_environment().cpu or "unknown CPU"


def describe_threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


def at_least(least: int) -> Callable[[str], int]:
    """Returns a parser for whole numbers on the command line that refuses those below `least`."""

    def number(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return int(text)

    return number


def parse_device(text: str) -> torch.device:
    """Parses the name of a device on the command line."""
    try:
        device = torch.device(text)
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"{text} is no device; take cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise argparse.ArgumentTypeError(f"{text} is not there: torch finds no GPU; take cpu")
    return device


def add_device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", type=parse_device, default="cuda" if torch.cuda.is_available() else "cpu")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that `create_setting` reads."""
    parser.add_argument("--task", dest="kind", choices=list_tasks(), default="classification")
    parser.add_argument("--size", type=at_least(1), default=32, help="height and width of the images")
    parser.add_argument("--batch", type=at_least(2), default=32)
    parser.add_argument("--classes", type=at_least(2), default=100)
    parser.add_argument("--threads", type=at_least(1), default=torch.get_num_threads())
    add_device(parser)
    parser.add_argument("--precision", choices=[*PRECISIONS], default="fp32")
    parser.add_argument("--compile", choices=[*COMPILED], default="false")
    parser.add_argument(
        "--clock", choices=[*CLOCKS], default="wall", help="processor time suits a busy machine, with --threads 1"
    )
    parser.add_argument("--channels-last", action=argparse.BooleanOptionalAction, default=True)


def create_setting(options: argparse.Namespace) -> Setting:
    """The setting of the command line. Also sets the number of threads, and keeps freed memory as the trainer does."""
    torch.set_num_threads(options.threads)
    if options.device.type == "cpu":
        keep_freed_memory()
    return Setting(**{name: getattr(options, name) for name in Setting._fields if hasattr(options, name)})


class Loss(NamedTuple):
    loss: Tensor


class UserModule(nn.Module):
    """A network and its loss from a user's file, called like a method."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.student = net

    def forward(self, batch: Batch, progress: Tensor) -> Loss:
        return Loss(self.student(batch.images, batch.target))

    def after_step(self) -> None: ...


def load_user_module(path: Path, student: str, task: Task) -> UserModule:
    """The module that the file's `build(student, num_classes, image_shape)` returns: (images, labels) -> loss, ()."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return UserModule(module.build(student, task.num_classes, task.image_shape))


def build_method(name: str, student: str, task: Task) -> Method:
    """The method around a new student; if it needs a teacher, that is the same network, untrained."""
    method_class = find_method(name)
    net = build_student(student, num_classes=task.num_classes, image_shape=task.image_shape, output=task.output)
    teacher: nn.Module | None = None
    if method_class.teacher_method:
        teacher = build_method(method_class.teacher_method, student, task)
    elif method_class.needs_teacher:
        teacher = build_method("baseline", student, task).student
    return create_method(name, net, task, teacher=teacher, total_steps=100_000)  # the settings of the papers


def draw_batch(task: Task, rows: int, *, views: int = 0, positives: int = 0) -> Batch:
    """A batch of random images and labels."""
    shape = task.image_shape
    more_images = [torch.randn(rows, count, *shape) if count else None for count in (views, positives)]
    target = torch.randint(task.num_classes, (rows, *task.positions))
    if task.target == "multi_label":
        target = torch.randint(2, (rows, task.num_classes))
    return Batch(torch.randn(rows, *shape), target, None, torch.arange(rows), *more_images)


def move_batch(batch: Batch, device: torch.device) -> Batch:
    return Batch(*(None if value is None else value.to(device) for value in batch))


class Stepper:
    """Takes training steps of a module that is called like a method."""

    def __init__(
        self,
        module: Any,
        batch: Batch,
        setting: Setting,
        *,
        wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
    ) -> None:
        self.module, self.setting, device = module.to(setting.device).train(), setting, setting.device
        self.batch = move_batch(batch, device)
        if setting.channels_last:
            module.to(memory_format=torch.channels_last)
            images = self.batch.images.contiguous(memory_format=torch.channels_last)
            self.batch = self.batch._replace(images=images)
        self.wrapped = wrap(module)
        self.optimizer = create_optimizer(module, TINY_STEPS)
        self.progress = torch.tensor(LATE, device=device)
        self.compiler: Compiler | None = None

    def compile(self) -> float:
        """Compiles the module as the setting says; returns the seconds that the first step takes beyond later ones."""
        mode = choose_mode(COMPILED[self.setting.compile], self.setting.device, 0)
        if mode is None:
            return 0.0
        self.compiler = Compiler(self.module, mode, strict=True)
        first, *others = (self.time_steps(1) for _ in range(4))
        return first - min(others)

    def close(self) -> None:
        """Frees all compiled graphs, also those of other steppers."""
        if self.compiler is not None:
            self.compiler.close()

    def backward(self) -> None:
        precision = PRECISIONS[self.setting.precision]
        with torch.autocast(self.setting.device.type, precision, enabled=precision != torch.float32):
            loss = self.wrapped(self.batch, self.progress).loss
        loss.backward()

    def step(self) -> None:
        if self.compiler is None:
            self.backward()
        else:
            self.compiler(self.backward, usual=True, mixed=False)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.module.after_step()

    def time_steps(self, steps: int) -> float:
        """Mean seconds of a step over so many steps."""
        read_clock = CLOCKS[self.setting.clock]
        self.wait()
        started = read_clock()
        for _ in range(steps):
            self.step()
        self.wait()
        return (read_clock() - started) / steps

    def wait(self) -> None:
        if self.setting.device.type == "cuda":
            torch.cuda.synchronize(self.setting.device)


def create_stepper(name: str, student: str, setting: Setting) -> Stepper:
    """A stepper of a method of the package, of "package.module:Class", or of a user's file `PATH.py`."""
    task = setting.task
    if name.endswith(".py"):
        return Stepper(load_user_module(Path(name), student, task), draw_batch(task, setting.batch), setting)
    method_class = find_method(name)
    batch = draw_batch(task, setting.batch, views=method_class.views, positives=method_class.positives)
    return Stepper(build_method(name, student, task), batch, setting)


def time_in_turns(steppers: Sequence[Stepper], turns: int) -> list[list[float]]:
    """Seconds per step of each stepper at each of its turns, after a warm-up."""
    rounds = [
        [stepper.time_steps(stepper.setting.steps_per_turn) for stepper in steppers] for _ in range(WARM_UP + turns)
    ]
    return [list(seconds) for seconds in zip(*rounds[WARM_UP:], strict=True)]


class Spread(NamedTuple):
    """A median and its quartiles."""

    low: float
    median: float
    high: float

    def describe(self, spec: str = ".2f") -> str:
        return f"{self.median:{spec}} ({self.low:{spec}} to {self.high:{spec}})"


def compute_spread(values: Sequence[float]) -> Spread:
    return Spread(*statistics.quantiles(values, n=4, method="inclusive"))
