"""Times what FRSKD's self-teacher does in its own way on CPUs: depthwise gradients made for AMX, ReLUs out of place.

    python benchmarks/depthwise.py --threads 1 --batch 64

First single maps: milliseconds of processor time of each gradient, medians. Then whole steps of FRSKD with and without
those for AMX, and with ReLUs in place, beside plain steps, in turns. It runs on any CPU; training takes the gradients
for AMX where the CPU has it only.
Cost: about 40 plain steps.
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from harness import Stepper, add_options, compute_spread, create_setting, create_stepper
from report import run_main
from selfdistill.modules import depthwise, recompute
from selfdistill.modules.depthwise import convolution_gradient_of_weight, gradient_of_input, gradient_of_weight
from selfdistill.report.markdown import markdown_table

MAPS = [(128, 32), (256, 16), (512, 8), (1024, 4)]  # channels and size: the self-teacher's around a CIFAR ResNet-18


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--student", default="cifar:resnet18")
    parser.add_argument("--turns", type=int, default=7)
    add_options(parser)
    parser.set_defaults(precision="bf16", batch=64, device=torch.device("cpu"))
    options = parser.parse_args(words)
    setting = create_setting(options)
    print(f"{setting.describe()}, batches of {setting.batch}, AMX: {depthwise.has_tiles()}\n")
    print(time_maps(setting.batch, options.turns), flush=True)
    plain, frskd = (create_stepper(name, options.student, setting) for name in ("baseline", "frskd"))
    ways = {
        "torch's gradients": {"tiles": False},
        "gradients for AMX": {"tiles": True},
        "as chosen for this CPU": {},
        "as chosen, ReLUs in place": {"slow": False},
        "as chosen, ReLUs out of place": {"slow": True},
    }
    turns = [[time_step(plain), *(time_step(frskd, **way) for way in ways.values())] for _ in range(options.turns + 1)]
    for column, name in enumerate(ways, 1):
        print(f"FRSKD, {name}: {compute_spread([turn[column] / turn[0] for turn in turns[1:]]).describe()} plain steps")


def time_maps(batch: int, turns: int) -> str:
    head = ["map", "input, torch: ms", "turned", "weight, torch: ms", "in blocks"]
    head += [f"relu{where}, {name}" for name in ("bf16", "fp32") for where in ("", "_")]
    rows = [[f"{channels} x {size} x {size}", *time_map(channels, size, batch, turns)] for channels, size in MAPS]
    return markdown_table(head, rows)


def time_map(channels: int, size: int, batch: int, turns: int) -> list[str]:
    """Milliseconds of the gradient of the input, torch's and ours, of that of the weight, and of ReLUs."""
    weight = torch.randn(channels, 1, 3, 3).bfloat16()
    feature, gradient = (
        torch.randn(batch, channels, size, size).bfloat16().contiguous(memory_format=torch.channels_last)
        for _ in range(2)
    )
    arguments = (gradient, feature, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], channels)
    calls = [
        lambda: torch.ops.aten.convolution_backward(*arguments, [True, False, False]),
        lambda: gradient_of_input(gradient, weight),
        lambda: convolution_gradient_of_weight(gradient, feature, weight, channels),
        lambda: gradient_of_weight(gradient, feature, weight),
    ]
    for values in (feature, feature.float()):
        calls += [functools.partial(F.relu, values), functools.partial(F.relu_, values.clone())]
    return [f"{1e3 * statistics.median([time_once(call) for _ in range(turns + 1)][1:]):.2f}" for call in calls]


def time_once(call: Callable[[], Any]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def time_step(stepper: Stepper, *, tiles: bool | None = None, slow: bool | None = None) -> float:
    """Seconds of processor time of a step, with or without the gradients for AMX, with ReLUs in place slow or not."""
    has_tiles, slow_in_place = depthwise.has_tiles, recompute.slow_in_place  # both are looked up in each call
    if tiles is not None:
        depthwise.has_tiles = lambda: tiles  # type: ignore[assignment]
    if slow is not None:
        recompute.slow_in_place = lambda x: slow
    try:
        return time_once(stepper.step)
    finally:
        depthwise.has_tiles, recompute.slow_in_place = has_tiles, slow_in_place


if __name__ == "__main__":
    run_main(main)
