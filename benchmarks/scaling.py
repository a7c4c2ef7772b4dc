"""How the cost of a step grows with the batch, the images' size, the classes, the training set and the processes.

    python benchmarks/scaling.py --methods baseline,frskd,ps_kd --axes batch,size,classes,examples
    python benchmarks/scaling.py --methods baseline,frskd --axes processes --batch 64

Along an axis all else stays as the options say. `exponent` is the slope of log cost over log size: 1 where cost grows
in proportion, 0 where it does not grow. `processes` measures the same batch in one process and in two, each with half
of it and half of the threads, started by torchrun: gloo between CPUs, nccl between GPUs.
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

from flops_memory import peak_memory
from harness import (
    Setting,
    Stepper,
    add_options,
    at_least,
    made,
    random_batch,
    setting_of,
    spread,
    stepper,
    time_in_turns,
)
from report import ended, tell
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
    """Of one step."""

    seconds: float
    memory: int  # bytes, at its peak; of one process


def main(words: list[str] | None = None) -> dict[str, dict[str, dict[int, Point]]]:
    """Measures along the axes, prints a table for each, and gives axis -> method -> size -> cost."""
    given, setting = arguments(words)
    if given.as_process is not None:
        run_as_process(given, setting)
        return {}
    print(f"{given.student}, {setting.told()}, batches of {setting.batch}, {setting.classes} classes\n")
    found = {}
    for axis in given.axes:
        found[axis] = processes(given, setting) if axis == "processes" else along(axis, given, setting)
        if found[axis]:
            print(f"**{axis}**\n\n{render(found[axis], growing=axis != 'processes')}\n", flush=True)
    return found


def arguments(words: list[str] | None) -> tuple[argparse.Namespace, Setting]:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    listed = {"type": lambda text: text.split(",")}
    parser.add_argument("--student", default="cifar:resnet20")
    parser.add_argument("--methods", **listed, default=["baseline", "frskd", "sla", "ps_kd"])
    parser.add_argument("--axes", **listed, default=[*AXES, "processes"], help=f"of {', '.join(AXES)}, processes")
    for axis, sizes in AXES.items():
        numbers = ",".join(map(str, sizes))
        parser.add_argument(f"--along-{axis}", type=several, default=sizes, metavar=numbers)
    parser.add_argument("--turns", type=at_least(2), default=5, help="steps of each, at least 2")
    parser.add_argument("--as-process", type=Path, help=argparse.SUPPRESS)  # one of several: where to write
    add_options(parser)
    given = parser.parse_args(words)
    for axis in given.axes:
        if axis not in [*AXES, "processes"]:
            parser.error(f"no axis is called {axis!r}; there are {', '.join(AXES)}, processes")
    if given.compile != "false":
        parser.error("--compile has no effect: growth is measured uncompiled")
    if "processes" in given.axes and given.batch % WORLD:
        parser.error(f"--batch {given.batch} cannot be dealt to {WORLD} processes; take a multiple of {WORLD}")
    return given, setting_of(given)


def several(text: str) -> list[int]:
    """Reads the sizes along an axis, at least two of them."""
    sizes = [at_least(1)(word) for word in text.split(",")]
    if len(sizes) < 2:
        raise argparse.ArgumentTypeError(f"{text} is one size, and growth takes two")
    return sizes


def along(axis: str, given: argparse.Namespace, setting: Setting) -> dict[str, dict[int, Point]]:
    """The cost of each method at each of the axis's sizes, which take turns."""
    found = {}
    for method in given.methods:
        sizes = getattr(given, f"along_{axis}")
        steppers = [stepper(method, given.student, setting._replace(**{axis: size})) for size in sizes]
        for each in steppers:
            each.step()
        memory = [peak_memory(each) for each in steppers]
        seconds = [spread(each).median for each in time_in_turns(steppers, given.turns)]
        found[method] = {size: Point(*each) for size, *each in zip(sizes, seconds, memory, strict=True)}
        tell(f"{axis} {method}")
    return found


def exponent(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """The slope of the least-squares line through the logarithms.

    >>> round(exponent([1, 2, 4], [3, 12, 48]), 6)
    2.0
    """
    return statistics.linear_regression(*([math.log(value) for value in each] for each in (sizes, costs))).slope


def render(found: dict[str, dict[int, Point]], *, growing: bool) -> str:
    """A table of seconds and one of memory; how they grow, or the ratio of the last to the first."""
    parts = []
    for unit, scale, digits in (("seconds", 1, 4), ("memory", 2**20, 1)):
        sizes = [*next(iter(found.values()))]
        head = ["s / step" if unit == "seconds" else "peak MiB", *map("{:,}".format, sizes)]
        rows = []
        for method, points in found.items():
            costs = [getattr(point, unit) for point in points.values()]
            rise = exponent(sizes, costs) if growing else costs[-1] / costs[0]
            rows.append([method, *(f"{cost / scale:,.{digits}f}" for cost in costs), f"{rise:.2f}"])
        parts.append(markdown_table([*head, "exponent" if growing else "ratio"], rows))
    return "\n\n".join(parts)


def processes(given: argparse.Namespace, setting: Setting) -> dict[str, dict[int, Point]]:
    """The cost of each method in one process and in two; nothing where there are too few GPUs."""
    if setting.device.type == "cuda" and torch.cuda.device_count() < WORLD:
        tell(f"processes: left out, as {WORLD} of them need as many GPUs")
        return {}
    counts = {world: launch(world, given, setting) for world in (1, WORLD)}
    return {method: {world: Point(*counts[world][method]) for world in counts} for method in given.methods}


def launch(world: int, given: argparse.Namespace, setting: Setting) -> dict[str, list[float]]:
    """Runs this file in so many processes, and gives what their first one wrote."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "points.json"
        options = {name: getattr(setting, name) for name in ("size", "batch", "classes", "device", "precision")}
        options |= {"task": setting.kind, "student": given.student, "methods": ",".join(given.methods)}
        options |= {"turns": given.turns, "threads": max(1, setting.threads // world), "as-process": out}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        words.append("--channels-last" if setting.channels_last else "--no-channels-last")
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(world)]
        subprocess.run([*torchrun, __file__, *words], check=True, stdout=subprocess.DEVNULL)
        return json.loads(out.read_text())


def run_as_process(given: argparse.Namespace, setting: Setting) -> None:
    """What one of several processes does: every method, one after another, on its share of the batch."""
    gpu = setting.device.type == "cuda"
    rank, world = int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device("cuda", rank) if gpu else setting.device
    setting = setting._replace(device=device, batch=setting.batch // world, examples=setting.batch)
    if gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpu else "gloo")
    together = functools.partial(DistributedDataParallel, static_graph=True)  # as accelerate is told in training
    points = {}
    for name in given.methods:
        kind = find_method(name)
        batch = random_batch(setting.task, setting.batch, views=kind.views, positives=kind.positives)
        own = Stepper(made(name, given.student, setting.task), batch, setting, wrapped=together)
        own.step()
        memory = peak_memory(own)
        dist.barrier()
        (seconds,) = time_in_turns([own], given.turns)
        points[name] = Point(spread(seconds).median, memory)
    if rank == 0:
        given.as_process.write_text(json.dumps(points))
    dist.destroy_process_group()


if __name__ == "__main__":
    ended(main)
