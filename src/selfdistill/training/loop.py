"""fit: the one training loop. It names no method, and it is the only file that imports accelerate.

What a step does depends on nothing but the weights and optimiser state, the seed and the step's number: row order and
augmentation come from (seed, epoch, row), and the global generators are seeded anew for every micro-batch. So a
checkpoint needs no generator state, and a run resumed in the middle of an epoch goes on bit for bit.
"""

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..config.part import flatten
from ..config.recipe import Recipe
from ..data import Plan, TrainSet, train_loader, window
from ..data.random.seeds import derive
from ..distributed import share_buffers
from ..errors import nearest
from ..method import Method
from ..metrics.evaluation import Scores
from ..runs.folder import Run
from ..runs.records import EndRecord, EpochRecord, Parameters, Record, TrainRecord, WarningRecord
from ..runs.student import StudentCard, save_student
from ..task import Batch, Step
from ..tasks import evaluate
from .callbacks import Watch
from .compile import Compiler, usual_ones, way_of
from .device import device_kind, settled_precision
from .memory import keep_freed_memory
from .meters import Meter, warnings
from .optim import new_ema, new_optimizer, new_schedule
from .profile import Pace, parameters, peak_memory_mib, reset_peak_memory
from .signals import Interrupted, stop_signals

WINDOW = 50  # optimiser steps between two lines of the log, at most
SAVE_SECONDS = 30  # between the checkpoints of epochs that take less, the first, best and last ones aside
HeldOut = Callable[..., Iterable[Batch]]  # (*, rank, world, device) -> one process's share of the evaluation rows
AUTOCAST = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Result(NamedTuple):
    """The end of a run."""

    scores: Scores | None  # of the student that ships, on the held-out rows, after the last step
    epoch: int  # epochs trained, one that was begun included
    step: int
    seconds_per_step: float  # median over the log's windows, input included
    peak_memory_mib: float | None
    compile_seconds: float  # by which the steps that compiled were slower than that; 0 where nothing was compiled


def fit(
    method: Method,
    train_set: TrainSet,
    recipe: Recipe,
    *,
    held_out: HeldOut | None = None,
    split: str = "val",
    mix: Callable[[Batch], Batch] | None = None,
    run: Run | None = None,
    resume: bool = False,
    card: StudentCard | None = None,
    watch: Watch | None = None,
) -> Result:
    """Trains `method` in place as `recipe` says (its optim, epochs, max_steps, batch_size, precision, seed, machine).

    `held_out` is scored after every epoch under the name `split`; only one called "val" chooses the best checkpoint.
    `mix` maps each batch to one with mixed images and labels. With a `run`, metrics, checkpoints and the student
    (described by `card`) are written there; `resume` goes on from its last checkpoint.
    Raises `Interrupted` after SIGINT or SIGTERM, once the checkpoint is written, and `ValueError` for settings that
    contradict each other or a loss that stays NaN or infinite.
    """
    training = Training(method, train_set, recipe, held_out=held_out, split=split, mix=mix, run=run, card=card)
    training.watch = watch or Watch()
    try:
        if resume:
            assert run is not None
            training.load(run.load_checkpoint("last"))
        return training.go()
    finally:
        training.watch.ended()
        training.close()


class Training:
    """The state of one `fit`."""

    def __init__(
        self,
        method: Method,
        train_set: TrainSet,
        recipe: Recipe,
        *,
        held_out: HeldOut | None,
        split: str,
        mix: Callable[[Batch], Batch] | None,
        run: Run | None,
        card: StudentCard | None,
    ) -> None:
        self.recipe, self.train_set, self.held_out, self.split = recipe, train_set, held_out, split
        self.mix, self.run, self.card, self.watch = mix, run, card, Watch()
        self.accelerator = new_accelerator(recipe)
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        self.device = self.accelerator.device
        if self.device.type == "cpu":
            keep_freed_memory()
        self.plan = Plan(
            len(train_set),
            recipe.batch_size,
            seed=recipe.seed,
            accumulate=recipe.optim.accumulate,
            rank=self.rank,
            world=self.world,
        )
        self.schedule_steps, self.last_step = length(recipe, self.plan.steps_per_epoch)
        self.plain = method.to(self.device)
        if recipe.machine.channels_last:
            self.plain.to(memory_format=torch.channels_last)
        optimizer = new_optimizer(method, recipe.optim)
        self.schedule = new_schedule(optimizer, recipe.optim, self.schedule_steps)
        self.ema = new_ema(method.student, recipe.optim)
        self.compiler = new_compiler(method, recipe, self.accelerator, steps=self.last_step)
        self.method, self.optimizer = self.accelerator.prepare(method.train(), optimizer)
        self.meter = Meter()
        self.epoch = self.step = self.step_in_epoch = 0
        self.best: float | None = None
        self.scores: Scores | None = None
        self.pace = Pace()
        self.warned: set[str] = set()

    def go(self) -> Result:
        if self.run is not None and self.rank == 0 and self.recipe.machine.track:
            self.accelerator.init_trackers("selfdistill")
        self.watch.started(first_step=self.step, last_step=self.last_step, steps_per_epoch=self.plan.steps_per_epoch)
        reset_peak_memory(self.device)
        self.saved_at, begun = time.monotonic(), self.step
        with stop_signals() as stop:
            while self.step < self.last_step:
                self.one_epoch(stop)
        if self.step == begun:  # resumed to end where it was stopped: the student written last is an older one
            self.scores = self.evaluate()
            self.refuse_broken_student()
            self.ship()
        result = Result(
            self.scores,
            self.epochs_begun,
            self.step,
            self.pace.usual,
            peak_memory_mib(self.device),
            self.pace.compile_seconds,
        )
        counts = Parameters(**parameters(self.plain))
        self.log(EndRecord(split=self.split, **result._asdict(), parameters=counts))
        return result

    def one_epoch(self, stop: list[str]) -> None:
        """Trains what is left of the current epoch, or up to the last step, then scores and saves."""
        self.scores = None
        every = self.plan.epoch(self.epoch)
        part = slice(self.step_in_epoch, self.step_in_epoch + self.last_step - self.step)
        steps = every[part]
        usual = usual_ones([[len(rows) for rows in step] for step in every], first_epoch=self.epoch == 0)[part]
        machine = self.recipe.machine
        place = {"device": self.device, "channels_last": machine.channels_last}
        loader = iter(train_loader(self.train_set, steps, workers=machine.workers, **place))
        started = time.perf_counter()
        for number, (micro_batches, fits) in enumerate(zip(steps, usual, strict=True), 1):
            compiles = self.one_step(loader, [len(rows) for rows in micro_batches], fits)
            full = len(self.pace.window) + 1 >= WINDOW or number == len(steps)
            means = self.meter.flush(self.sum_over_processes) if full else None  # this waits for the device
            self.pace.add(time.perf_counter() - started, compiles=compiles)
            started = time.perf_counter()
            self.watch.stepped(self.step)
            if means is not None:
                self.log_window(*means)
            if self.step == self.last_step:
                break  # a run that went on from here would have nothing left to score after
            if self.asked_to_stop(stop):
                self.save()
                raise Interrupted(f"{(stop or ['another process'])[0]}: stopped after step {self.step}")
            if time.monotonic() - self.saved_at > 60 * self.recipe.machine.checkpoint_minutes:
                self.save()
        if self.step_in_epoch == self.plan.steps_per_epoch:
            self.epoch, self.step_in_epoch = self.epoch + 1, 0
        self.close_epoch()

    def one_step(self, loader: Iterator[Batch], rows: list[int], usual: list[bool]) -> bool:
        """One optimiser step over micro-batches of so many `rows`: the gradient is the mean over all of them.

        `usual` are those that run compiled, where anything does. Gives whether one had to be compiled first. Nothing in
        here waits for the device.
        """
        self.schedule.step_update(self.step)
        compiles = False
        for micro, count in enumerate(rows):
            batch = next(loader)
            seed_generators(self.recipe.seed, self.step, micro, self.rank)
            if self.mix is not None:
                batch = self.mix(batch)
            last = micro == len(rows) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.method):
                step = self.one_pass(batch, count / sum(rows), usual[micro])
            compiles |= self.compiler.unsteady
            self.meter.add(step, batch.target, self.plain.task.void, batch.soft_target)
        self.clip()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step, self.step_in_epoch = self.step + 1, self.step_in_epoch + 1
        self.plain.after_step()
        if self.ema is not None:
            self.ema.update(self.plain.student, step=self.step)
        return compiles

    def one_pass(self, batch: Batch, share: float, usual: bool) -> Step:
        """The method forward and backward on a micro-batch that is a `share` of its step, compiled if it is `usual`."""
        progress = torch.full((), self.step / self.schedule_steps, device=self.device)  # torch.tensor would wait

        def work() -> Step:
            step = self.method(batch, progress)
            self.accelerator.backward(step.loss * share)
            return step

        step = self.compiler(work, usual=usual, mixed=batch.soft_target is not None)
        if self.compiler.failure is not None:
            self.warn("compile", self.compiler.failure)
        return step

    def clip(self) -> None:
        """Holds the gradient within the recipe's bounds, its values first and then its norm."""
        optim, parameters = self.recipe.optim, list(self.method.parameters())
        if optim.clip_value is not None or optim.clip is not None:
            self.accelerator.unscale_gradients()  # once: accelerate's own clipping does it twice, which fp16 refuses
        if optim.clip_value is not None:
            nn.utils.clip_grad_value_(parameters, optim.clip_value)
        if optim.clip is not None:
            nn.utils.clip_grad_norm_(parameters, optim.clip)

    def asked_to_stop(self, stop: list[str]) -> bool:
        """Whether a signal came; several processes agree on it every tenth step, so that none waits for another."""
        if self.world == 1:
            return bool(stop)
        if self.step % 10:
            return False
        return bool(self.sum_over_processes(torch.full((), len(stop), device=self.device)))

    @property
    def epochs_begun(self) -> int:
        return self.epoch + (self.step_in_epoch > 0)

    def log_window(self, losses: dict[str, float], accuracy: float) -> None:
        """Writes the means since the last line and warns of terms that cannot be right."""
        self.log(
            TrainRecord(
                epoch=self.epoch + 1,
                step=self.step,
                lr=self.optimizer.param_groups[0]["lr"],
                losses=losses,
                accuracy=accuracy,
                seconds_per_step=self.pace.flush(),
            )
        )
        asleep = (self.step - 1) / self.schedule_steps < self.plain.warmup  # as the last step saw it
        for key, sentence in warnings(losses, asleep=asleep):
            self.warn(key, sentence)
        if not all(math.isfinite(value) for value in losses.values()):
            self.refuse_broken_student()

    def warn(self, key: str, sentence: str) -> None:
        """Tells the user once, and the log."""
        if key not in self.warned:
            self.warned.add(key)
            self.log(WarningRecord(epoch=self.epoch + 1, step=self.step, text=sentence))
            self.watch.warned(f"step {self.step}: {sentence}")

    def refuse_broken_student(self) -> None:
        """Raises `ValueError` where a weight or a score is NaN or infinite: no step mends that, and none may ship."""
        values = (*self.plain.parameters(), *self.plain.buffers())
        scored = self.scores is None or self.scores.finite
        if not scored or not all(bool(value.isfinite().all()) for value in values):
            raise ValueError(
                f"the network's values became NaN or infinite before step {self.step}; lower optim.lr, now "
                f"{self.recipe.optim.lr}, or the weights of the loss terms, set optim.clip, or use precision=fp32"
            )

    def sum_over_processes(self, values: Tensor) -> Tensor:
        return self.accelerator.reduce(values, reduction="sum")

    def close_epoch(self) -> None:
        """Scores the student that would ship now, and saves everything, unless that was done a moment ago."""
        self.scores = self.evaluate()
        self.refuse_broken_student()
        better = False
        if self.scores is not None:
            self.log(EpochRecord(epoch=self.epochs_begun, step=self.step, split=self.split, scores=self.scores))
            better = self.split == "val" and (self.best is None or self.scores.main > self.best)
            self.best = self.scores.main if better else self.best
        ends = self.epochs_begun == 1 or self.step == self.last_step
        if better or ends or time.monotonic() - self.saved_at > SAVE_SECONDS:
            self.ship()
            self.save(best=better)

    def ship(self) -> None:
        """Writes the student and what is to be known of it."""
        if self.run is not None and self.rank == 0:
            assert self.card is not None
            card = self.card.model_copy(
                update={
                    "weights": "student" if self.ema is None else "ema",
                    "epoch": self.epochs_begun,
                    "step": self.step,
                    "scores": None if self.scores is None else self.scores._asdict(),
                }
            )
            save_student(self.run, self.shipped.state_dict(), card)

    @property
    def shipped(self) -> nn.Module:
        """The network that the user gets: the student, or its moving average."""
        return self.plain.student if self.ema is None else self.ema.module

    def evaluate(self) -> Scores | None:
        if self.held_out is None:
            return None
        share_buffers(self.shipped)
        task = self.plain.task
        return evaluate(
            self.shipped,
            self.held_out(rank=self.rank, world=self.world, device=self.device),
            num_classes=task.num_classes,
            kind=task.kind,
            ignore_index=task.void,
            window=window(self.recipe.data),
            device=self.device,
            precision=AUTOCAST[self.accelerator.mixed_precision],
        )

    def log(self, record: Record) -> None:
        if self.rank != 0:
            return
        if self.run is not None:
            self.run.append(record)
        if self.recipe.machine.track:
            values = flatten(record.model_dump())
            numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
            self.accelerator.log(numbers, step=self.step)
        self.watch.logged(record)

    def save(self, *, best: bool = False) -> None:
        """Writes the best checkpoint, where this is it, and then the last: a run killed before that does all again."""
        self.saved_at = time.monotonic()
        if self.run is None or self.rank != 0:
            return
        state = self.state()
        if best:
            self.run.save_checkpoint(state, "best")
        self.run.save_checkpoint(state, "last")

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on; the generators and the schedule follow from the step."""
        scaler = self.accelerator.scaler
        return {
            "format": 1,
            "epoch": self.epoch,
            "step": self.step,
            "step_in_epoch": self.step_in_epoch,
            "best": self.best,
            "method": self.plain.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "meter": self.meter.state(),
            **self.pace.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self.plain.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        if self.accelerator.scaler is not None and state["scaler"]:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.meter.load(state["meter"], self.device)
        self.pace.load(state)
        for name in ("epoch", "step", "step_in_epoch", "best"):
            setattr(self, name, state[name])
        if self.run is not None and self.rank == 0:
            self.run.rewind(self.step)

    def close(self) -> None:
        """Gives the method back as it came, without accelerate's wrapping of its forward and without a compiled one."""
        self.compiler.close()
        self.accelerator.unwrap_model(self.method, keep_fp32_wrapper=False)
        if self.recipe.machine.track:
            self.accelerator.end_training()


def preflight(method: Method, recipe: Recipe) -> None:
    """Raises the `ValueError`s of `fit` for a recipe that cannot be trained here, without training."""
    device = new_accelerator(recipe).device
    way_of(recipe.machine.compile, device, 0, accumulate=recipe.optim.accumulate)
    new_optimizer(method, recipe.optim)


def length(recipe: Recipe, steps_per_epoch: int) -> tuple[int, int]:
    """Optimiser steps that the schedule spans, and those after which training stops."""
    if recipe.epochs is None:
        assert recipe.max_steps is not None
        return recipe.max_steps, recipe.max_steps
    planned = recipe.epochs * steps_per_epoch
    return planned, min(planned, recipe.max_steps or planned)


def new_compiler(method: Method, recipe: Recipe, accelerator: Any, *, steps: int) -> Compiler:
    """What runs the method's steps in a run of so many, compiled or not."""
    setting = recipe.machine.compile
    way = way_of(setting, accelerator.device, steps, accumulate=recipe.optim.accumulate)
    strict = setting != "auto" or accelerator.num_processes > 1  # other processes wait in the middle of the step
    return Compiler(method, way, strict=strict)


def new_accelerator(recipe: Recipe) -> Any:
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state()  # an earlier fit of this process may have had another precision
    GradientState._reset_state()
    kind, precision = device_kind(recipe), settled_precision(recipe)
    refuse_absent_trackers(recipe.machine.track)
    whole = recipe.optim.accumulate == 1  # a static graph allows parameters without gradient, but no accumulation
    return Accelerator(
        mixed_precision="no" if precision == "fp32" else precision,
        cpu=kind == "cpu",
        log_with=recipe.machine.track or None,
        project_dir=Path(recipe.out or "."),
        kwargs_handlers=[DistributedDataParallelKwargs(static_graph=whole, find_unused_parameters=not whole)],
    )


def refuse_absent_trackers(names: list[str]) -> None:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    available = {str(getattr(kind, "value", kind)) for kind in get_available_trackers()}
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ValueError(f"machine.track={name} is no tracker of accelerate{nearest(name, LOGGER_TYPE_TO_CLASS)}")
        if name not in available:
            raise ValueError(f"machine.track={name} is not installed; pip install {name}")


def seed_generators(*parts: int) -> None:
    """Seeds torch's, Python's and numpy's global generators with a hash of `parts`."""
    seed = derive(*parts) % 2**32
    torch.default_generator.manual_seed(seed)  # torch.manual_seed also asks for devices that are not there: 70 us
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
