"""Whole epochs of training on real data: images per second, and what of it input and evaluation take.

    python benchmarks/throughput.py data=digits student=cifar:resnet20 --methods baseline,frskd
    python benchmarks/throughput.py data=/my/cifar10 student=cifar:resnet18 --precision bf16 --compile true
    python benchmarks/throughput.py --loading data=/my/photographs data.image_size=224 --workers 0,1,2

Words `name=value` are a recipe's. Epochs go through `fit`, the first one apart. `step alone` is the pace of the same
step on data that is already on the device, measured before and after; what `fit` adds to it, input and log lines,
is `lost`. `first step` holds whatever is done once: filling a cache, compiling.

`--loading` measures input alone, with a student that costs nothing: for every number of workers and every
`machine.cache`, images per second, and per second of processor time (what a core gives that does nothing else).
Without `data=` it makes JPEG files of 500x375 pixels to read.
"""

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import psutil
import torch
from PIL import Image

from harness import COMPILED, PRECISIONS, Setting, Stepper, at_least, random_batch, spread
from report import ended, tell
from selfdistill.build import build
from selfdistill.config.read import read
from selfdistill.config.recipe import MachinePart, Recipe
from selfdistill.methods import find_method
from selfdistill.report.markdown import markdown_table
from selfdistill.runs.records import Record
from selfdistill.training.callbacks import Callback
from selfdistill.training.device import choose_device
from selfdistill.training.experiment import Experiment
from selfdistill.training.loop import fit
from selfdistill.training.state import TrainState

TURNS = 5  # of steps alone, before and after the epochs
STEPS = 4  # alone, in a turn on a CPU
PHOTOGRAPHS = {"train": 256, "val": 16}  # made where no data are named


class EpochTimes(NamedTuple):
    """Of whole epochs, the first one aside."""

    images: int  # of an epoch
    train_seconds: float
    evaluation_seconds: float  # after each epoch
    first_step_seconds: float
    cpu_seconds: float  # of this process and the loader's, in one epoch


class Clock(Callback):
    """Notes when things happen while `fit` runs."""

    def __init__(self, *, scored: bool) -> None:
        self.scored = scored  # whether epochs end with an evaluation
        self.begun = [0.0]  # an epoch's start
        self.trained: list[float] = []  # the end of its last step
        self.cpu: list[float] = []  # processor time at an epoch's first step: by then the last epoch's workers are gone
        self.first_step = self.steps = 0

    def on_start(self, state: TrainState) -> None:
        self.steps, self.begun = state.steps_per_epoch, [time.perf_counter()]

    def on_step(self, state: TrainState) -> None:
        step = state.step
        if step == 1:
            self.first_step = time.perf_counter() - self.begun[0]
        if step % self.steps == 1 or self.steps == 1:
            self.cpu.append(cpu_seconds())

    def on_log(self, state: TrainState, record: Record) -> None:
        if record.kind == "train" and record.step % self.steps == 0:
            self.trained.append(time.perf_counter())
        if record.kind == ("epoch" if self.scored else "train") and record.step % self.steps == 0:
            self.begun.append(time.perf_counter())

    def pace(self, images: int) -> EpochTimes:
        training = [end - start for start, end in zip(self.begun, self.trained, strict=False)]
        scoring = [start - end for start, end in zip(self.begun[1:], self.trained, strict=False)]
        cpu = [after - before for before, after in itertools.pairwise(self.cpu)]
        medians = (statistics.median(each[1:] or each or [0.0]) for each in (training, scoring))
        return EpochTimes(images, *medians, self.first_step, statistics.median(cpu[1:] or cpu))


def cpu_seconds() -> float:
    """Processor time of this process and its children, those that have ended included; its own to the microsecond."""
    ended, living = os.times()[2:4], [child.cpu_times()[:4] for child in psutil.Process().children(recursive=True)]
    return time.process_time() + sum(map(sum, (ended, *living)))


def main(words: list[str] | None = None) -> list[list[str]]:
    """Prints the table that the command line asks for, and gives its rows."""
    given = arguments(words)
    if given.threads:
        torch.set_num_threads(given.threads)
    if given.loading:
        return loading(given)
    rows = [epochs(method, given) for method in given.methods]
    head = ["method", "images / s", "step alone", "lost, %", "epoch s", "evaluation s", "first step s"]
    print(f"{' '.join(given.words)}, {given.precision}, compile {given.compile}, {given.epochs} epochs\n")
    print(markdown_table(head, rows))
    return rows


def arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    listed = {"type": lambda text: text.split(",")}
    parser.add_argument("words", nargs="*", metavar="NAME=VALUE", help="settings of a recipe")
    parser.add_argument("--methods", **listed, default=["baseline", "frskd"])
    parser.add_argument("--epochs", type=at_least(2), default=3, help="the first of them aside")
    parser.add_argument("--precision", choices=[*PRECISIONS], default="fp32")
    parser.add_argument("--compile", choices=[*COMPILED], default="false")
    parser.add_argument("--threads", type=at_least(0), default=0, help="of torch; as many as it takes by itself")
    parser.add_argument("--loading", action="store_true", help="input alone")
    parser.add_argument("--workers", **listed, default=["0", "1", "2"], help="0,4,8: of --loading")
    parser.add_argument("--caches", **listed, default=None, help="device,memory: of --loading; all there are")
    return parser.parse_intermixed_args(words)


def recipe_of(given: argparse.Namespace, *more: str) -> Recipe:
    settings = [f"epochs={given.epochs}", f"precision={given.precision}", f"machine.compile={given.compile}"]
    return read(None, [*settings, *given.words, *more])


def epochs(method: str, given: argparse.Namespace) -> list[str]:
    """A row of the table: whole epochs of a method, and its steps alone."""
    recipe = recipe_of(given, f"method={method}")
    alone = stepper_alone(recipe, given)
    before = [alone.seconds(steps(alone)) for _ in range(TURNS)]
    pace = time_epochs(build(recipe))
    seconds = spread(before + [alone.seconds(steps(alone)) for _ in range(TURNS)]).median
    whole = pace.train_seconds * alone.setting.batch / pace.images
    cells = [method, f"{pace.images / pace.train_seconds:,.0f}", f"{alone.setting.batch / seconds:,.0f}"]
    cells += [f"{100 * (1 - seconds / whole):.1f}", f"{pace.train_seconds:.2f}", f"{pace.evaluation_seconds:.2f}"]
    tell(" ".join(cells))
    return [*cells, f"{pace.first_step_seconds:.2f}"]


def steps(alone: Stepper) -> int:
    return max(STEPS, alone.setting.steps_per_turn)


def time_epochs(experiment: Experiment, *, scored: bool = True) -> EpochTimes:
    """Trains an experiment, without a run folder, and tells its pace."""
    experiment = experiment if scored else replace(experiment, held_out=None)
    clock = Clock(scored=experiment.held_out is not None)
    fit(experiment, callbacks=[clock])
    return clock.pace(min(clock.steps * (experiment.recipe.batch_size or 0), len(experiment.train_set)))


def stepper_alone(recipe: Recipe, given: argparse.Namespace) -> Stepper:
    """Steps of the recipe's method on one batch of noise that is already there."""
    method, kind = build(recipe).method, find_method(recipe.method.name)
    task = method.task
    rows = min(recipe.batch_size or 1, task.num_examples)
    setting = Setting(
        task.kind,
        rows,
        task.image_shape[1],
        task.num_classes,
        torch.device(choose_device(recipe)),
        given.precision,
        given.compile,
        recipe.machine.channels_last,
        torch.get_num_threads(),
    )
    stepper = Stepper(method, random_batch(task, rows, views=kind.views, positives=kind.positives), setting)
    stepper.compile()
    stepper.seconds(steps(stepper))
    return stepper


def loading(given: argparse.Namespace) -> list[list[str]]:
    """Input alone, for every number of workers and every cache."""
    with tempfile.TemporaryDirectory() as folder:
        if not any(word.startswith("data=") for word in given.words):
            given.words = [f"data={write_photographs(Path(folder))}", "data.image_size=224", *given.words]
            tell(f"made {sum(PHOTOGRAPHS.values())} JPEG files of 500x375 pixels")
        rows = [loaded(workers, cache, given) for cache in caches(given) for workers in given.workers]
    print("Input alone, one thread a process\n")
    print(markdown_table(["cache", "workers", "images / s", "images / s of processor time", "first step s"], rows))
    return rows


def caches(given: argparse.Namespace) -> Sequence[str]:
    """Those asked for, or all places that a cache can be in."""
    return given.caches or [each for each in get_args(MachinePart.model_fields["cache"].annotation) if each != "auto"]


def loaded(workers: str, cache: str, given: argparse.Namespace) -> list[str]:
    settings = ["method=baseline", "student=null_model:mean_colour", "batch_size=64"]
    settings += [f"machine.workers={workers}", f"machine.cache={cache}"]
    torch.set_num_threads(1)
    try:
        pace = time_epochs(build(recipe_of(given, *settings)), scored=False)
    except ValueError as error:
        tell(f"cache {cache}, {workers} workers: {error}")
        return [cache, workers, "refused", "", ""]
    per_cpu = f"{pace.images / pace.cpu_seconds:,.0f}" if pace.cpu_seconds else "too short"
    row = [cache, workers, f"{pace.images / pace.train_seconds:,.0f}", per_cpu, f"{pace.first_step_seconds:.2f}"]
    tell(" ".join(row))
    return row


def write_photographs(folder: Path) -> Path:
    """A folder of two classes of JPEG files, soft blobs under noise, about 60 kB each as photographs are."""
    draw = np.random.default_rng(0)
    for number, split in enumerate(split for split, count in PHOTOGRAPHS.items() for _ in range(count)):
        blobs = Image.fromarray(draw.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((500, 375), Image.BICUBIC)
        noisy = np.asarray(blobs).astype(np.int16) + draw.normal(0, 12, (375, 500, 1)).astype(np.int16)
        place = folder / split / f"class{number % 2}" / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(place, quality=90)
    return folder


if __name__ == "__main__":
    ended(main)
