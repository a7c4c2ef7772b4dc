"""contract: what every method must keep to, tried on one method, above all on one of your own.

A method is trained by a loop that knows nothing of it, resumed, compiled, exported without its training-only parts and
run in several precisions. Each of these asks something of it. Here a small student, a random batch and a few steps find
out whether it does.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import one_line
from ..method import Method
from ..methods import find_method
from ..models import build_student
from ..task import Batch, Step
from ..tasks import Task, find_task
from .cards import list_tasks_of
from .console import say

STUDENTS = {"image": ("cifar:resnet8", 16), "pixel": ("smp:Unet/resnet18", 32)}  # by what a score belongs to; pixels
ROWS, CLASSES, RATE = 8, 5, 0.01


class Broken(Exception):
    """What a method does wrong, as the end of a sentence that begins with its name."""


class Trial(NamedTuple):
    """A method on a task; every copy begins with the same weights."""

    method: Method
    batch: Batch

    def copy(self) -> Method:
        return copy.deepcopy(self.method)


def print_contract(name: str) -> bool:
    """Tries a method on each of its tasks and prints a line for each promise; returns whether it keeps them all."""
    kind, kept = find_method(name), True
    for task in list_tasks_of(kind):
        for promise, problem in check_method(kind, task):
            kept &= problem is None
            say(
                f"{'ok ' if problem is None else 'NO '} {task}: {promise}{'' if problem is None else f': it {problem}'}"
            )
    return kept


def check_method(kind: type[Method], task: str) -> Iterator[tuple[str, str | None]]:
    """Each promise, and what the method does instead; None where it keeps it."""
    trial = build_trial(kind, task)
    for promise, check in PROMISES.items():
        problem = None
        try:
            check(trial)
        except Broken as broken:
            problem = str(broken)
        except Exception as error:
            problem = f"fails: {one_line(error)}"
        yield promise, problem


def build_trial(kind: type[Method], name: str) -> Trial:
    """The method around a small student, and a random batch of all that it asks for."""
    output = find_task(name).output
    network, side = STUDENTS[output]
    task = Task(name, CLASSES, (3, side, side), num_examples=ROWS)
    students = [
        build_student(network, num_classes=CLASSES, image_shape=task.image_shape, output=output) for _ in range(2)
    ]
    teacher: nn.Module | None = students[1] if kind.needs_teacher else None
    if kind.teacher_method:
        teacher = find_method(kind.teacher_method)(students[1], task)
    target = torch.randint(CLASSES, (ROWS, *task.positions))
    if task.target != "class":
        target = torch.randint(2, (ROWS, CLASSES))
    more_images = (torch.randn(ROWS, count, *task.image_shape) if count else None for count in count_images(kind))
    batch = Batch(torch.randn(ROWS, *task.image_shape), target, None, torch.arange(ROWS), *more_images)
    return Trial(kind(students[0], task, teacher=teacher).train(), batch)


def count_images(kind: type[Method]) -> tuple[int, int]:
    return kind.views, kind.positives


def take_steps(method: Method, batch: Batch, numbers: range, optimizer: torch.optim.Optimizer | None = None) -> Step:
    """Trains as the training loop does, each step with random numbers of its own; returns the last one."""
    learn = [parameter for parameter in method.parameters() if parameter.requires_grad]
    optimizer = optimizer or torch.optim.SGD(learn, RATE, momentum=0.9)
    for number in numbers:
        torch.manual_seed(number)
        step = method(batch, torch.tensor(number / 10))
        optimizer.zero_grad()
        step.loss.backward()
        optimizer.step()
        method.after_step()
    return step


def check_losses(trial: Trial) -> None:
    step = take_steps(trial.copy(), trial.batch, range(3))
    for name, term in step.losses.items():
        if term.shape != () or not term.isfinite():
            raise Broken(f"returns {tuple(term.shape)} of {term.flatten()[:3].tolist()} for {name}, which is no number")
    if not step.losses:
        raise Broken("returns no loss term")


def check_that_all_learns(trial: Trial) -> None:
    method = trial.copy()
    take_steps(method, trial.batch, range(2))
    method(trial.batch, torch.tensor(0.5)).loss.backward()
    idle = [name for name, p in method.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    if idle:
        raise Broken(f"leaves {idle[0]} without a gradient ({len(idle)} such); freeze it, or keep it as a buffer")


def check_logits(trial: Trial) -> None:
    method = trial.copy().eval()
    with torch.no_grad():
        logits, scores = method(trial.batch, torch.tensor(0.5)).logits, method.student(trial.batch.images)
    if logits.shape != scores.shape or not torch.allclose(logits, scores, atol=1e-4, rtol=1e-3):
        raise Broken("returns other logits than the student gives for batch.images")


def check_student(trial: Trial) -> None:
    method, keys = trial.copy(), [*trial.method.student.state_dict()]
    method(trial.batch, torch.tensor(0.5))
    student = method.student
    del method
    if [*student.state_dict()] != keys:
        raise Broken("changes the names of the student's weights")
    left = [name for name, module in student.named_modules() if module._forward_hooks or module._forward_pre_hooks]
    if left:
        raise Broken(f"leaves a hook on the student's {left[0] or 'network'} when it is gone; read maps with self.taps")


def check_batch(trial: Trial) -> None:
    before = [None if part is None else part.clone() for part in trial.batch]
    take_steps(trial.copy(), trial.batch, range(1))
    for name, old, new in zip(Batch._fields, before, trial.batch, strict=True):
        if old is not None and not torch.equal(old, new):
            raise Broken(f"writes into batch.{name}")


def check_repetition(trial: Trial) -> None:
    first, second = (take_steps(trial.copy(), trial.batch, range(2)).losses for _ in range(2))
    if any(not torch.equal(first[name], second[name]) for name in first):
        raise Broken("gives other losses for the same weights, batch and seed; draw from torch's generator alone")


def check_resumption(trial: Trial) -> None:
    """What outlives a step, such as an average or the last batch, must be in `state_dict`."""
    whole, resumed = trial.copy(), trial.copy()
    learn = [[p for p in method.parameters() if p.requires_grad] for method in (whole, resumed)]
    optimizers = [torch.optim.SGD(parameters, RATE, momentum=0.9) for parameters in learn]
    take_steps(whole, trial.batch, range(2), optimizers[0])
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    going_on, going_back = (
        take_steps(method, trial.batch, range(2, 4), optimizer)
        for method, optimizer in zip((whole, resumed), optimizers, strict=True)
    )
    for name, value in going_on.losses.items():
        if not torch.equal(value, going_back.losses[name]):
            raise Broken(f"ends with another {name} when it is resumed; keep what outlives a step in a buffer")


def check_teacher(trial: Trial) -> None:
    method = trial.copy()
    if method.teacher is None:
        return
    before = copy.deepcopy(method.teacher.state_dict())
    take_steps(method, trial.batch, range(2))
    changed = [name for name, value in method.teacher.state_dict().items() if not torch.equal(value, before[name])]
    if changed:
        raise Broken(f"changes its teacher's {changed[0]}")


def check_one_graph(trial: Trial) -> None:
    method = trial.copy()
    method(trial.batch, torch.tensor(0.0))  # one that remembers the last batch runs another graph first
    torch.compiler.reset()
    compiled = torch.compile(method, fullgraph=True, dynamic=False, backend="eager")
    try:
        for progress in {*method.phases.values()} if method.has_phases else [0.3]:
            method.begin_step(progress)
            compiled(trial.batch, torch.tensor(progress)).loss.backward()
    except torch._dynamo.exc.TorchDynamoException as error:
        raise Broken(f"is not one graph for torch.compile ({one_line(error)})") from error
    finally:
        torch.compiler.reset()


def check_double(trial: Trial) -> None:
    batch = Batch(*(part.double() if is_float(part) else part for part in trial.batch))
    for name, value in trial.copy().double()(batch, torch.tensor(0.5)).losses.items():
        if value.dtype != torch.float64:
            raise Broken(f"computes {name} in {value.dtype} where all is float64")


def check_mixed_precision(trial: Trial) -> None:
    method = trial.copy()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        step = method(trial.batch, torch.tensor(0.9))
    for name, value in step.losses.items():
        if value.dtype != torch.float32 or not value.isfinite():
            raise Broken(f"computes {name} in {value.dtype} under autocast; take the functions of selfdistill.losses")


def check_words(trial: Trial) -> None:
    kind = type(trial.method)
    if not (kind.__doc__ or "").strip():
        raise Broken("has no docstring that says who teaches whom")
    if not kind.cost:
        raise Broken('says nothing of its price; set cost = "..." in words')


def is_float(part: Any) -> bool:
    return isinstance(part, Tensor) and part.is_floating_point()


PROMISES: dict[str, Callable[[Trial], None]] = {
    "every loss term is a finite number": check_losses,
    "every weight that may learn gets a gradient": check_that_all_learns,
    "its logits are the student's": check_logits,
    "the student stays a plain network": check_student,
    "the batch stays as it was": check_batch,
    "the same seed gives the same step": check_repetition,
    "a resumed run goes on as if it had not stopped": check_resumption,
    "a teacher is left alone": check_teacher,
    "a step is one graph": check_one_graph,
    "float64 stays float64": check_double,
    "bfloat16 reaches no loss": check_mixed_precision,
    "it says what it does and what it costs": check_words,
}
