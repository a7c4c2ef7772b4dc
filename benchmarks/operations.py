"""Where the time of a step goes: each operation of a method's step beside those of a plain step.

    python benchmarks/operations.py --method frskd --student cifar:resnet18 --batch 64 --precision bf16

Prints milliseconds per step and calls, as torch's profiler counts them: of an operation itself, what it calls aside, on
a GPU the time of its kernels. The plain step's and the method's steps follow each other, on the same data. Cost: some
ten steps of each.
"""

import argparse
from typing import Any, NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from pages import ended, table
from stepping import Stepper, add_options, at_least, setting_of, stepper

STEPS = 5
WARM_UP = 3


class Operation(NamedTuple):
    milliseconds: float
    calls: float


def main(words: list[str] | None = None) -> dict[str, tuple[Operation, Operation]]:
    """Prints the table that the command line asks for; gives each operation of the method's, the plain step's first."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--method", default="frskd")
    parser.add_argument("--student", default="cifar:resnet18")
    parser.add_argument("--rows", type=at_least(1), default=14, help="operations shown, the costliest first")
    add_options(parser)
    given = parser.parse_args(words)
    if given.compile != "false":
        parser.error("--compile has no effect: operations are those of the uncompiled step")
    setting = setting_of(given)
    plain, own = (operations(stepper(name, given.student, setting)) for name in ("baseline", given.method))
    none = Operation(0.0, 0.0)
    both = {name: (plain.get(name, none), own.get(name, none)) for name in {**own, **plain}}
    print(f"{setting.told()}, batches of {setting.batch}\n\n**{given.student}**\n\n{shown(both, given)}")
    return both


def operations(of: Stepper) -> dict[str, Operation]:
    """What a step of it does, by name."""
    of.seconds(WARM_UP)
    kinds = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * torch.cuda.is_available()]
    with profile(activities=kinds) as seen:
        of.seconds(STEPS)
    on_gpu = of.setting.device.type == "cuda"
    events = [each for each in seen.key_averages() if each.device_type == DeviceType.CPU]  # kernels count for these
    return {each.key: Operation(own_time(each, on_gpu) / 1e3 / STEPS, each.count / STEPS) for each in events}


def own_time(event: Any, on_gpu: bool) -> float:
    """Microseconds."""
    return event.self_device_time_total if on_gpu else event.self_cpu_time_total


def shown(both: dict[str, tuple[Operation, Operation]], given: argparse.Namespace) -> str:
    """The operations by what the method adds to them, and the sum of all."""
    ranked = sorted(both.items(), key=lambda item: item[1][0].milliseconds - item[1][1].milliseconds)
    rows = [line(name, *each) for name, each in ranked[: given.rows]]
    whole = [Operation(sum(each[i].milliseconds for each in both.values()), 0.0) for i in (0, 1)]
    rows.append([*line("all", *whole)[:3], "", ""])
    return table(["operation, ms per step", "baseline", given.method, "calls", "calls"], rows)


def line(name: str, plain: Operation, own: Operation) -> list[str]:
    times = [f"{each.milliseconds:.1f}" for each in (plain, own)]
    return [name.removeprefix("aten::"), *times, *(f"{each.calls:.0f}" for each in (plain, own))]


if __name__ == "__main__":
    ended(main)
