"""Where the time of a step goes: each operation of a method's step beside those of a plain step.

    python benchmarks/operations.py --method frskd --student cifar:resnet18 --batch 64 --precision bf16

Prints milliseconds per step and calls: on a CPU the time of each operation that autograd calls, on a GPU that of its
kernels, as torch's profiler counts them. The plain step's and the method's steps follow each other, on the same data.
Cost: some ten steps of each.
"""

import argparse
import time
from collections import Counter
from typing import Any, NamedTuple

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from harness import Stepper, add_options, at_least, setting_of, stepper
from report import ended
from selfdistill.report.markdown import markdown_table

STEPS = 5
WARM_UP = 6


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
    print(f"{setting.told()}, batches of {setting.batch}\n\n**{given.student}**\n\n{render(both, given)}")
    return both


def operations(of: Stepper) -> dict[str, Operation]:
    """What a step of it does, by name."""
    of.seconds(WARM_UP)
    return kernels(of) if of.setting.device.type == "cuda" else Timed.steps(of)


def kernels(of: Stepper) -> dict[str, Operation]:
    """By torch's profiler, on a GPU."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        of.seconds(STEPS)
    own = [each for each in seen.key_averages() if each.device_type == DeviceType.CPU]  # kernels count for these
    return {each.key: Operation(each.self_device_time_total / 1e3 / STEPS, each.count / STEPS) for each in own}


class Timed(TorchDispatchMode):
    """Reads the clock around every operation, on a CPU: the profiler's own memory there costs a third of a step."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        started = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        name = f"aten::{func.overloadpacket.__name__}"
        self.seconds[name] += time.perf_counter() - started
        self.calls[name] += 1
        return result

    @classmethod
    def steps(cls, of: Stepper) -> dict[str, Operation]:
        with cls() as seen:
            of.seconds(STEPS)
        return {name: Operation(1e3 * each / STEPS, seen.calls[name] / STEPS) for name, each in seen.seconds.items()}


def render(both: dict[str, tuple[Operation, Operation]], given: argparse.Namespace) -> str:
    """The operations by what the method adds to them, and the sum of all."""
    ranked = sorted(both.items(), key=lambda item: item[1][0].milliseconds - item[1][1].milliseconds)
    rows = [line(name, *each) for name, each in ranked[: given.rows]]
    whole = [Operation(sum(each[i].milliseconds for each in both.values()), 0.0) for i in (0, 1)]
    rows.append([*line("all", *whole)[:3], "", ""])
    return markdown_table(["operation, ms per step", "baseline", given.method, "calls", "calls"], rows)


def line(name: str, plain: Operation, own: Operation) -> list[str]:
    times = [f"{each.milliseconds:.1f}" for each in (plain, own)]
    return [name.removeprefix("aten::"), *times, *(f"{each.calls:.0f}" for each in (plain, own))]


if __name__ == "__main__":
    ended(main)
