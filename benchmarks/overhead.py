"""Measures what a training step of each method costs beside a plain one: time, memory, operations, parameters.

    python benchmarks/overhead.py --students cifar:resnet18 --methods frskd,sla --precision bf16
    python benchmarks/overhead.py --students cifar:resnet18 --methods frskd --against mine.py
    python benchmarks/overhead.py --task segmentation --students smp:Unet/resnet18 --size 64 --batch 4
    python benchmarks/overhead.py --students cifar:resnet18,cifar:resnet20 --turns 3 --out times.json

A method's steps take turns with plain ones, each on its own network. `slowdown` is the method's seconds over those of
the plain step beside it: the median over the turns, with the quartiles. `baseline` is measured in the same way, and its
distance from 1 shows how much the measurement varies. Memory, operations and rows are counted, not timed
(flops_memory.py). `rows` are the images that enter the student per image of the batch. A teacher is the same student,
untrained. A method that refuses the student is left out, with the reason.

On a busy machine take `--threads 1 --clock processor`: seconds are then those of this process alone.

`--against FILE.py` measures another implementation in the same turns. The file's `build(student, num_classes,
image_shape)` returns a module that maps (images, labels) to the loss and holds all trained weights as parameters.

`--out FILE.json` adds the results to a file from which docs/methods.md is written. The file keeps its results for other
students and methods, which must have been measured in the same way.
Cost: about 30 plain steps per method.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

from flops_memory import Counts, count_costs
from harness import (
    Setting,
    Spread,
    Stepper,
    add_options,
    at_least,
    compute_spread,
    create_setting,
    create_stepper,
    time_in_turns,
)
from report import run_main, tell
from selfdistill import list_methods
from selfdistill.commands.cards import list_tasks_of
from selfdistill.methods import find_method
from selfdistill.report.markdown import markdown_table
from selfdistill.tasks import find_task

HEAD = "method|s / step|slowdown|images / s|peak MiB|x|GFLOP / image|x|rows|parameters|training only"


class Cost(NamedTuple):
    """The cost of a method's step, beside a plain step of the same student."""

    seconds: Spread
    slowdown: Spread
    counts: Counts
    plain: Counts
    compile_seconds: float

    @property
    def memory(self) -> float:
        return self.counts.memory / self.plain.memory

    @property
    def flops(self) -> float:
        return self.counts.flops / self.plain.flops


def main(words: list[str] | None = None) -> dict[str, dict[str, Cost]]:
    """Measures what the command line names, prints a table for each student, and returns the numbers."""
    options = parse_arguments(words)
    setting = create_setting(options)
    report = None if options.out is None else open_report(options.out, setting)
    print(f"{setting.describe()}, batches of {setting.batch}, {setting.classes} classes\n")
    costs: dict[str, dict[str, Cost]] = {}
    for student in options.students:
        names = [*choose_methods(options), *map(str, options.against)]
        costs[student] = measure_costs(student, names, setting, options.turns)
        print(f"**{student}**\n\n{render(costs[student], setting)}\n", flush=True)
        if report is not None and options.out is not None:
            add_costs(report, student, costs[student])
            options.out.write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return costs


def parse_arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    listed = {"type": lambda text: text.split(",")}
    parser.add_argument("--students", **listed, default=None, help="cifar:resnet18,timm:resnet18")
    parser.add_argument("--methods", **listed, default=None, help="frskd,kd; default: all of the task")
    parser.add_argument("--against", type=Path, nargs="*", default=[], metavar="FILE.py", help="see this script's top")
    parser.add_argument("--turns", type=at_least(2), default=7, help="turns of each method, at least 2")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    add_options(parser)
    options = parser.parse_args(words)
    for path in options.against:
        if not path.is_file():
            parser.error(f"--against: there is no file {path}")
    for name in options.methods or ():
        find_method(name)  # refuses an unknown name before anything is measured
    usual = {"image": ["cifar:resnet18"], "pixel": ["smp:Unet/resnet18"]}  # by what a score belongs to
    options.students = options.students or usual[find_task(options.kind).output]
    return options


def choose_methods(options: argparse.Namespace) -> list[str]:
    """The methods of the command line, or all of the task; plain training comes first."""
    known = [name for name in list_methods() if options.kind in list_tasks_of(find_method(name))]
    return ["baseline", *(name for name in options.methods or known if name != "baseline")]


def measure_costs(student: str, names: list[str], setting: Setting, turns: int) -> dict[str, Cost]:
    """The cost of every method that takes the student; each takes turns with plain training."""
    costs: dict[str, Cost] = {}
    plain = create_stepper("baseline", student, setting)
    plain_counts = count_costs(plain)
    for name in names:
        try:
            stepper = create_stepper(name, student, setting)
        except ValueError as error:
            tell(f"{name:18} left out: {error}")
            continue
        costs[name] = measure_cost(stepper, plain, plain_counts, turns)
        tell(f"{name:18} {costs[name].slowdown.describe()} x")
    return costs


def measure_cost(stepper: Stepper, plain: Stepper, plain_counts: Counts, turns: int) -> Cost:
    counts = count_costs(stepper)
    compile_seconds = stepper.compile()  # before the plain step, which would leave `baseline` nothing to compile
    plain.compile()
    plain_seconds, seconds = time_in_turns([plain, stepper], turns)
    stepper.close()  # a process can hold only a few graphs
    plain.close()
    ratios = [numerator / denominator for numerator, denominator in zip(seconds, plain_seconds, strict=True)]
    return Cost(compute_spread(seconds), compute_spread(ratios), counts, plain_counts, compile_seconds)


def render(costs: dict[str, Cost], setting: Setting) -> str:
    """A table of one student's costs."""
    head = [*HEAD.split("|"), *["compile s"] * (setting.compile != "false")]
    rows = []
    for name, cost in costs.items():
        cells = [
            name,
            cost.seconds.describe(".4f"),
            cost.slowdown.describe(),
            f"{setting.batch / cost.seconds.median:,.0f}",
        ]
        cells += [f"{cost.counts.memory / 2**20:,.1f}", f"{cost.memory:.2f}"]
        cells += [f"{cost.counts.flops / 1e9 / setting.batch:.3f}", f"{cost.flops:.2f}", f"{cost.counts.rows:g}"]
        cells += [f"{cost.counts.student:,}", f"{cost.counts.training_only:,}"]
        rows.append([*cells, *[f"{cost.compile_seconds:.1f}"] * (setting.compile != "false")])
    return markdown_table(head, rows)


def open_report(path: Path, setting: Setting) -> dict[str, Any]:
    """The report in `path`, or an empty one; exits if it was measured in another way."""
    conditions = {"machine": setting.describe(), "batch": setting.batch, "classes": setting.classes}
    report = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {**conditions, "students": {}}
    for key, value in conditions.items():
        if report[key] != value:
            raise SystemExit(f"{path} was measured with {key} {report[key]!r}, not {value!r}; give another --out")
    return report


def add_costs(report: dict[str, Any], student: str, costs: dict[str, Cost]) -> None:
    """Adds a student's costs to the report; the numbers of other methods stay."""
    results = report["students"].setdefault(student, {})
    results["baseline_seconds"] = round(costs["baseline"].seconds.median, 5)
    for name, cost in costs.items():
        if name == "baseline" or name.endswith(".py"):
            continue
        low, median, high = (round(value, 3) for value in cost.slowdown)
        columns = {"ratios": median, "spread": [low, high], "memory": cost.memory, "flops": cost.flops}
        for column, value in columns.items():
            results.setdefault(column, {})[name] = round(value, 3) if isinstance(value, float) else value
        results.setdefault("rows", {})[name] = cost.counts.rows


if __name__ == "__main__":
    run_main(main)
