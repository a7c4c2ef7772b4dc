"""Measures whole epochs of training on real data: images per second, and the share of input and evaluation.

    python benchmarks/throughput.py data=digits student=cifar:resnet20 --methods baseline,frskd
    python benchmarks/throughput.py data=/my/cifar10 student=cifar:resnet18 --precision bf16 --compile true
    python benchmarks/throughput.py --loading data=/my/photographs data.image_size=224 --workers 0,1,2

Words `name=value` are settings of a recipe. Epochs go through `fit`; the first one is not counted. `step alone` is the
speed of the same step on data that is already on the device, measured before and after the epochs. `lost` is the share
of time that `fit` adds to it for input and log lines. `first step` includes what is done once: filling a cache,
compiling.

`--loading` measures input alone, with a student that costs nothing. For every number of workers and every
`machine.cache` it prints images per second, and images per second of processor time (the speed of one busy core).
Without `data=` it writes JPEG files of 500x375 pixels and reads them.
"""

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import psutil
import torch
from PIL import Image

from harness import COMPILED, PRECISIONS, Setting, Stepper, at_least, compute_spread, draw_batch
from report import run_main, tell
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

TURNS = 5  # of the step alone, before and again after the epochs
STEPS = 4  # of the step alone in a turn, on a CPU
PHOTOGRAPHS = {"train": 256, "val": 16}  # files to write if no data are named


class EpochTimes(NamedTuple):
    """Medians over the epochs after the first."""

    images: int  # in an epoch
    train_seconds: float
    evaluation_seconds: float  # after each epoch
    first_step_seconds: float
    cpu_seconds: float  # of this process and its workers, in one epoch


class Clock(Callback):
    """Records when epochs start and end while `fit` runs."""

    def __init__(self, *, scored: bool) -> None:
        self.scored = scored  # whether epochs end with an evaluation
        self.epoch_starts = [0.0]
        self.training_ends: list[float] = []  # of each epoch's last step
        self.cpu: list[float] = []  # processor time at each epoch's first step, when the workers of the last are gone
        self.first_step = self.steps = 0

    def on_start(self, state: TrainState) -> None:
        self.steps, self.epoch_starts = state.steps_per_epoch, [time.perf_counter()]

    def on_step(self, state: TrainState) -> None:
        step = state.step
        if step == 1:
            self.first_step = time.perf_counter() - self.epoch_starts[0]
        if step % self.steps == 1 or self.steps == 1:
            self.cpu.append(read_cpu_seconds())

    def on_log(self, state: TrainState, record: Record) -> None:
        if record.kind == "train" and record.step % self.steps == 0:
            self.training_ends.append(time.perf_counter())
        if record.kind == ("epoch" if self.scored else "train") and record.step % self.steps == 0:
            self.epoch_starts.append(time.perf_counter())

    def compute_times(self, images: int) -> EpochTimes:
        """The medians over the epochs after the first; `images` are those of one epoch."""
        starts, ends = self.epoch_starts, self.training_ends
        training = [end - start for start, end in zip(starts, ends, strict=False)]
        scoring = [start - end for start, end in zip(starts[1:], ends, strict=False)]
        cpu = [after - before for before, after in itertools.pairwise(self.cpu)]
        medians = (statistics.median(seconds[1:] or seconds or [0.0]) for seconds in (training, scoring))
        return EpochTimes(images, *medians, self.first_step, statistics.median(cpu[1:] or cpu))


def read_cpu_seconds() -> float:
    """Processor time of this process, to the microsecond, and of its children, ended ones included."""
    ended_children = os.times()[2:4]
    children = [child.cpu_times()[:4] for child in psutil.Process().children(recursive=True)]
    return time.process_time() + sum(map(sum, (ended_children, *children)))


def main(words: list[str] | None = None) -> list[list[str]]:
    """Prints the table of the command line, and returns its rows."""
    options = parse_arguments(words)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.loading:
        return measure_loading(options)
    rows = [measure_epochs(method, options) for method in options.methods]
    head = ["method", "images / s", "step alone", "lost, %", "epoch s", "evaluation s", "first step s"]
    print(f"{' '.join(options.words)}, {options.precision}, compile {options.compile}, {options.epochs} epochs\n")
    print(markdown_table(head, rows))
    return rows


def parse_arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    listed = {"type": lambda text: text.split(",")}
    parser.add_argument("words", nargs="*", metavar="NAME=VALUE", help="settings of a recipe")
    parser.add_argument("--methods", **listed, default=["baseline", "frskd"])
    parser.add_argument("--epochs", type=at_least(2), default=3, help="the first one is not counted")
    parser.add_argument("--precision", choices=[*PRECISIONS], default="fp32")
    parser.add_argument("--compile", choices=[*COMPILED], default="false")
    parser.add_argument("--threads", type=at_least(0), default=0, help="of torch; 0: its default")
    parser.add_argument("--loading", action="store_true", help="measure input alone")
    parser.add_argument("--workers", **listed, default=["0", "1", "2"], help="of --loading: 0,4,8")
    parser.add_argument("--caches", **listed, default=None, help="of --loading: device,memory; default: all")
    return parser.parse_intermixed_args(words)


def read_recipe(options: argparse.Namespace, *more: str) -> Recipe:
    settings = [f"epochs={options.epochs}", f"precision={options.precision}", f"machine.compile={options.compile}"]
    return read(None, [*settings, *options.words, *more])


def measure_epochs(method: str, options: argparse.Namespace) -> list[str]:
    """A row of the table: whole epochs of a method, and its step alone."""
    recipe = read_recipe(options, f"method={method}")
    stepper = build_stepper(recipe, options)
    before = time_turns(stepper)
    times = time_epochs(build(recipe))
    step_seconds = compute_spread(before + time_turns(stepper)).median
    batch = stepper.setting.batch
    fit_seconds = times.train_seconds * batch / times.images  # per step
    cells = [method, f"{times.images / times.train_seconds:,.0f}", f"{batch / step_seconds:,.0f}"]
    cells += [f"{100 * (1 - step_seconds / fit_seconds):.1f}"]
    cells += [f"{times.train_seconds:.2f}", f"{times.evaluation_seconds:.2f}"]
    tell(" ".join(cells))
    return [*cells, f"{times.first_step_seconds:.2f}"]


def time_turns(stepper: Stepper) -> list[float]:
    """Seconds per step in each of `TURNS` turns."""
    return [stepper.time_steps(count_steps(stepper)) for _ in range(TURNS)]


def count_steps(stepper: Stepper) -> int:
    """How many steps a turn has."""
    return max(STEPS, stepper.setting.steps_per_turn)


def time_epochs(experiment: Experiment, *, scored: bool = True) -> EpochTimes:
    """Trains an experiment without a run folder, and returns the times of its epochs."""
    experiment = experiment if scored else replace(experiment, held_out=None, train_sample=None)
    clock = Clock(scored=experiment.held_out is not None)
    fit(experiment, callbacks=[clock])
    return clock.compute_times(min(clock.steps * (experiment.recipe.batch_size or 0), len(experiment.train_set)))


def build_stepper(recipe: Recipe, options: argparse.Namespace) -> Stepper:
    """A stepper of the recipe's method on one batch of noise that is already on the device."""
    method, method_class = build(recipe).method, find_method(recipe.method.name)
    task = method.task
    rows = min(recipe.batch_size or 1, task.num_examples)
    setting = Setting(
        task.kind,
        rows,
        task.image_shape[1],
        task.num_classes,
        torch.device(choose_device(recipe)),
        options.precision,
        options.compile,
        recipe.machine.channels_last,
        torch.get_num_threads(),
    )
    stepper = Stepper(
        method, draw_batch(task, rows, views=method_class.views, positives=method_class.positives), setting
    )
    stepper.compile()
    stepper.time_steps(count_steps(stepper))
    return stepper


def measure_loading(options: argparse.Namespace) -> list[list[str]]:
    """Measures input alone, for every number of workers and every cache."""
    with tempfile.TemporaryDirectory() as folder:
        if not any(word.startswith("data=") for word in options.words):
            options.words = [f"data={write_photographs(Path(folder))}", "data.image_size=224", *options.words]
            tell(f"wrote {sum(PHOTOGRAPHS.values())} JPEG files of 500x375 pixels")
        rows = [
            measure_cache(cache, workers, options) for cache in choose_caches(options) for workers in options.workers
        ]
    print("Input alone, one thread per process\n")
    print(markdown_table(["cache", "workers", "images / s", "images / s of processor time", "first step s"], rows))
    return rows


def choose_caches(options: argparse.Namespace) -> Sequence[str]:
    """The caches of the command line, or all that `machine.cache` takes."""
    caches = get_args(MachinePart.model_fields["cache"].annotation)
    return options.caches or [cache for cache in caches if cache != "auto"]


def measure_cache(cache: str, workers: str, options: argparse.Namespace) -> list[str]:
    """A row of the table: input alone with one cache and one number of workers."""
    settings = ["method=baseline", "student=null_model:build_mean_color", "batch_size=64"]
    settings += [f"machine.workers={workers}", f"machine.cache={cache}"]
    torch.set_num_threads(1)
    try:
        times = time_epochs(build(read_recipe(options, *settings)), scored=False)
    except ValueError as error:
        tell(f"cache {cache}, {workers} workers: {error}")
        return [cache, workers, "refused", "", ""]
    per_cpu = f"{times.images / times.cpu_seconds:,.0f}" if times.cpu_seconds else "too short"
    row = [cache, workers, f"{times.images / times.train_seconds:,.0f}", per_cpu, f"{times.first_step_seconds:.2f}"]
    tell(" ".join(row))
    return row


def write_photographs(
    folder: Path, counts: Mapping[str, int] = PHOTOGRAPHS, size: tuple[int, int] = (500, 375), noise: float = 12.0
) -> Path:
    """Writes a folder of two classes of JPEG files: soft blobs with noise, about 60 kB each, like photographs."""
    generator = np.random.default_rng(0)
    for number, split in enumerate(split for split, count in counts.items() for _ in range(count)):
        blobs = Image.fromarray(generator.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(size, Image.BICUBIC)
        noisy = np.asarray(blobs).astype(np.int16) + generator.normal(0, noise, (*size[::-1], 1)).astype(np.int16)
        file = folder / split / f"class{number % 2}" / f"{number}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, quality=90)
    return folder


if __name__ == "__main__":
    run_main(main)
