"""Measures how the cost of a step grows with batch, image size, classes, training set and processes.

    python benchmarks/scaling.py --methods baseline,frskd,ps_kd --axes batch,size,classes,examples
    python benchmarks/scaling.py --methods baseline,frskd --axes processes --batch 64

Along an axis everything else stays as the options say. `exponent` is the slope of log cost over log size: 1 if the cost
grows in proportion, 0 if it does not grow. `processes` measures the same batch in one process and in two that torchrun
starts, each with half of the batch and half of the threads: gloo between CPUs, nccl between GPUs.
"""

import argparse
import functools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from flops_memory import measure_peak_memory
from harness import (
    Setting,
    Stepper,
    add_options,
    at_least,
    build_method,
    compute_spread,
    create_setting,
    create_stepper,
    draw_batch,
    time_in_turns,
)
from report import run_main, tell
from selfdistill.methods import find_method
from selfdistill.report.markdown import markdown_table

AXES = {
    "batch": (16, 32, 64, 128),
    "size": (16, 32, 64),
    "classes": (10, 100, 1000),
    "examples": (1_000, 10_000, 100_000),
}
WORLD = 2


class Point(NamedTuple):
    """The cost of one step."""

    seconds: float
    memory: int  # bytes at the peak, of one process


def main(words: list[str] | None = None) -> dict[str, dict[str, dict[int, Point]]]:
    """Measures along the axes, prints a table for each, and returns axis -> method -> size -> cost."""
    options, setting = parse_arguments(words)
    if options.as_process is not None:
        run_as_process(options, setting)
        return {}
    print(f"{options.student}, {setting.describe()}, batches of {setting.batch}, {setting.classes} classes\n")
    points = {}
    for axis in options.axes:
        is_growing = axis != "processes"
        points[axis] = measure_along(axis, options, setting) if is_growing else measure_processes(options, setting)
        if points[axis]:
            print(f"**{axis}**\n\n{render(points[axis], growing=is_growing)}\n", flush=True)
    return points


def parse_arguments(words: list[str] | None) -> tuple[argparse.Namespace, Setting]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    listed = {"type": lambda text: text.split(",")}
    parser.add_argument("--student", default="cifar:resnet20")
    parser.add_argument("--methods", **listed, default=["baseline", "frskd", "sla", "ps_kd"])
    parser.add_argument("--axes", **listed, default=[*AXES, "processes"], help=f"of {', '.join(AXES)}, processes")
    for axis, sizes in AXES.items():
        numbers = ",".join(map(str, sizes))
        parser.add_argument(f"--along-{axis}", type=parse_sizes, default=sizes, metavar=numbers)
    parser.add_argument("--turns", type=at_least(2), default=5, help="steps of each, at least 2")
    parser.add_argument("--as-process", type=Path, help=argparse.SUPPRESS)  # where one of several processes writes
    add_options(parser)
    options = parser.parse_args(words)
    for axis in options.axes:
        if axis not in [*AXES, "processes"]:
            parser.error(f"no axis is called {axis!r}; there are {', '.join(AXES)}, processes")
    if options.compile != "false":
        parser.error("--compile has no effect: growth is measured uncompiled")
    if "processes" in options.axes and options.batch % WORLD:
        parser.error(f"--batch {options.batch} cannot be dealt to {WORLD} processes; take a multiple of {WORLD}")
    return options, create_setting(options)


def parse_sizes(text: str) -> list[int]:
    """Parses the sizes along an axis, at least two of them."""
    sizes = [at_least(1)(word) for word in text.split(",")]
    if len(sizes) < 2:
        raise argparse.ArgumentTypeError(f"{text} is one size, and growth takes two")
    return sizes


def measure_along(axis: str, options: argparse.Namespace, setting: Setting) -> dict[str, dict[int, Point]]:
    """The cost of each method at each size of the axis; the sizes take turns."""
    points = {}
    for method in options.methods:
        sizes = getattr(options, f"along_{axis}")
        steppers = [create_stepper(method, options.student, setting._replace(**{axis: size})) for size in sizes]
        for stepper in steppers:
            stepper.step()
        memory = [measure_peak_memory(stepper) for stepper in steppers]
        seconds = [compute_spread(times).median for times in time_in_turns(steppers, options.turns)]
        points[method] = {size: Point(*costs) for size, *costs in zip(sizes, seconds, memory, strict=True)}
        tell(f"{axis} {method}")
    return points


def fit_exponent(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """The slope of the least-squares line through the logarithms.

    >>> round(fit_exponent([1, 2, 4], [3, 12, 48]), 6)
    2.0
    """
    log_sizes, log_costs = ([math.log(value) for value in values] for values in (sizes, costs))
    return statistics.linear_regression(log_sizes, log_costs).slope


def render(points: dict[str, dict[int, Point]], *, growing: bool) -> str:
    """A table of seconds and one of memory, with the exponent of growth or the ratio of the last to the first."""
    tables = []
    for unit, scale, digits in (("seconds", 1, 4), ("memory", 2**20, 1)):
        sizes = [*next(iter(points.values()))]
        head = ["s / step" if unit == "seconds" else "peak MiB", *map("{:,}".format, sizes)]
        rows = []
        for method, by_size in points.items():
            costs = [getattr(point, unit) for point in by_size.values()]
            growth = fit_exponent(sizes, costs) if growing else costs[-1] / costs[0]
            rows.append([method, *(f"{cost / scale:,.{digits}f}" for cost in costs), f"{growth:.2f}"])
        tables.append(markdown_table([*head, "exponent" if growing else "ratio"], rows))
    return "\n\n".join(tables)


def measure_processes(options: argparse.Namespace, setting: Setting) -> dict[str, dict[int, Point]]:
    """The cost of each method in one process and in two; nothing if there are too few GPUs."""
    if setting.device.type == "cuda" and torch.cuda.device_count() < WORLD:
        tell(f"processes: left out, since {WORLD} processes need {WORLD} GPUs")
        return {}
    points = {world: launch(world, options, setting) for world in (1, WORLD)}
    return {method: {world: Point(*points[world][method]) for world in points} for method in options.methods}


def launch(world: int, options: argparse.Namespace, setting: Setting) -> dict[str, list[float]]:
    """Runs this file in `world` processes, and returns what the first one wrote."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "points.json"
        values = {name: getattr(setting, name) for name in ("size", "batch", "classes", "device", "precision")}
        values |= {"task": setting.kind, "student": options.student, "methods": ",".join(options.methods)}
        values |= {"turns": options.turns, "threads": max(1, setting.threads // world), "as-process": out}
        words = [word for name, value in values.items() for word in (f"--{name}", str(value))]
        words.append("--channels-last" if setting.channels_last else "--no-channels-last")
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(world)]
        subprocess.run([*torchrun, __file__, *words], check=True, stdout=subprocess.DEVNULL)
        return json.loads(out.read_text())


def run_as_process(options: argparse.Namespace, setting: Setting) -> None:
    """Measures every method on this process's share of the batch; the first process writes the results."""
    gpu = setting.device.type == "cuda"
    rank, world = int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device("cuda", rank) if gpu else setting.device
    setting = setting._replace(device=device, batch=setting.batch // world, examples=setting.batch)
    if gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpu else "gloo")
    wrap = functools.partial(DistributedDataParallel, static_graph=True)  # as training sets it in accelerate
    points = {}
    for name in options.methods:
        method_class = find_method(name)
        batch = draw_batch(setting.task, setting.batch, views=method_class.views, positives=method_class.positives)
        stepper = Stepper(build_method(name, options.student, setting.task), batch, setting, wrap=wrap)
        stepper.step()
        memory = measure_peak_memory(stepper)
        dist.barrier()
        (seconds,) = time_in_turns([stepper], options.turns)
        points[name] = Point(compute_spread(seconds).median, memory)
    if rank == 0:
        options.as_process.write_text(json.dumps(points))
    dist.destroy_process_group()


if __name__ == "__main__":
    run_main(main)
