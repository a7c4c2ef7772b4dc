"""Measures where the time of a step goes: each operation of a method's step beside those of a plain step.

    python benchmarks/operations.py --method frskd --student cifar:resnet18 --batch 64 --precision bf16

Prints milliseconds and calls per step. On a CPU they are those of each operation that autograd calls, on a GPU those of
its kernels, as torch's profiler counts them. The method's steps follow the plain ones.
Cost: about ten steps of each.
"""

import argparse
from collections import Counter
from typing import Any, NamedTuple

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from harness import CLOCKS, Stepper, add_options, at_least, create_setting, create_stepper
from report import run_main
from selfdistill.report.markdown import markdown_table

STEPS = 5
WARM_UP = 6


class Operation(NamedTuple):
    milliseconds: float
    calls: float


def main(words: list[str] | None = None) -> dict[str, tuple[Operation, Operation]]:
    """Prints the table; returns each operation's cost in the plain step and in the method's step."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--method", default="frskd")
    parser.add_argument("--student", default="cifar:resnet18")
    parser.add_argument("--rows", type=at_least(1), default=14, help="operations shown, the costliest first")
    add_options(parser)
    options = parser.parse_args(words)
    if options.compile != "false":
        parser.error("--compile has no effect: operations are those of the uncompiled step")
    setting = create_setting(options)
    names = ("baseline", options.method)
    plain, method = (measure_operations(create_stepper(name, options.student, setting)) for name in names)
    zero = Operation(0.0, 0.0)
    costs = {name: (plain.get(name, zero), method.get(name, zero)) for name in {**method, **plain}}
    print(f"{setting.describe()}, batches of {setting.batch}\n\n**{options.student}**\n\n{render(costs, options)}")
    return costs


def measure_operations(stepper: Stepper) -> dict[str, Operation]:
    """The operations of one step, by name."""
    stepper.time_steps(WARM_UP)
    return profile_on_gpu(stepper) if stepper.setting.device.type == "cuda" else OperationTimer.measure(stepper)


def profile_on_gpu(stepper: Stepper) -> dict[str, Operation]:
    """The operations of one step, with the time of their kernels, by torch's profiler."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        stepper.time_steps(STEPS)
    averages = profiler.key_averages()
    events = [event for event in averages if event.device_type == DeviceType.CPU]  # they include their kernels' time
    return {event.key: Operation(event.self_device_time_total / 1e3 / STEPS, event.count / STEPS) for event in events}


class OperationTimer(TorchDispatchMode):
    """Times every operation on a CPU, where torch's profiler would make a step a third slower."""

    def __init__(self, clock: str) -> None:
        super().__init__()
        self.read_clock = CLOCKS[clock]
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        started = self.read_clock()
        result = func(*args, **(kwargs or {}))
        name = f"aten::{func.overloadpacket.__name__}"
        self.seconds[name] += self.read_clock() - started
        self.calls[name] += 1
        return result

    @classmethod
    def measure(cls, stepper: Stepper) -> dict[str, Operation]:
        """The operations of one step, by name."""
        with cls(stepper.setting.clock) as timer:
            stepper.time_steps(STEPS)
        return {
            name: Operation(1e3 * seconds / STEPS, timer.calls[name] / STEPS) for name, seconds in timer.seconds.items()
        }


def render(costs: dict[str, tuple[Operation, Operation]], options: argparse.Namespace) -> str:
    """A table of the operations, first those to which the method adds most, and the sum of all."""
    ranked = sorted(costs.items(), key=lambda item: item[1][0].milliseconds - item[1][1].milliseconds)
    rows = [format_row(name, *pair) for name, pair in ranked[: options.rows]]
    totals = [Operation(sum(pair[i].milliseconds for pair in costs.values()), 0.0) for i in (0, 1)]
    rows.append([*format_row("all", *totals)[:3], "", ""])
    return markdown_table(["operation, ms per step", "baseline", options.method, "calls", "calls"], rows)


def format_row(name: str, plain: Operation, method: Operation) -> list[str]:
    times = [f"{operation.milliseconds:.1f}" for operation in (plain, method)]
    return [name.removeprefix("aten::"), *times, *(f"{operation.calls:.0f}" for operation in (plain, method))]


if __name__ == "__main__":
    run_main(main)
