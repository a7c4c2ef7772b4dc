"""What a training step of every method costs beside one of plain training: time, memory, operations, parameters.

    python benchmarks/overhead.py --students cifar:resnet18 --methods frskd,sla --precision bf16
    python benchmarks/overhead.py --students cifar:resnet18 --methods frskd --against mine.py
    python benchmarks/overhead.py --task segmentation --students smp:Unet/resnet18 --size 64 --batch 4
    python benchmarks/overhead.py --students cifar:resnet18 --batch 16 --threads 1 --out docs/step-times.json

A method's steps take turns with plain ones, each on a network of its own. `slowdown` is the median over the turns of
its seconds over those of the plain step beside it, with the quartiles. `baseline` is measured in the same way: how far
it is from 1 is what chance does to the others. Memory, operations and rows are counted, not timed (flops_memory.py).
`rows` are those that enter the student for each image. Teachers are the same student, untrained. A method that refuses
the student is named with its reason and left out.

`--against FILE.py` measures another implementation in the same turns: the file's `build(student, num_classes,
image_shape)` gives a module that takes (images, labels) and gives the loss, with whatever it trains as its parameters.

`--out FILE.json` adds what was measured to a file that docs/methods.md is written from; what the file holds of other
students and methods stays, and must have been measured in the same way.
Cost: some 30 plain steps a method.
"""

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

from flops_memory import Counts, count_costs
from harness import Setting, Spread, Stepper, add_options, at_least, setting_of, spread, stepper, time_in_turns
from report import ended, tell
from selfdistill import list_methods
from selfdistill.methods import find_method
from selfdistill.report.markdown import markdown_table
from selfdistill.tasks import list_tasks

HEAD = "method|s / step|slowdown|images / s|peak MiB|x|GFLOP / image|x|rows|parameters|training only"


class Cost(NamedTuple):
    """Of one method's step, beside a plain one of the same student."""

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
    """Measures what the command line asks for, prints a table for each student, and gives the numbers."""
    given = arguments(words)
    setting = setting_of(given)
    report = None if given.out is None else opened(given.out, setting)
    print(f"{setting.told()}, batches of {setting.batch}, {setting.classes} classes\n")
    found: dict[str, dict[str, Cost]] = {}
    for student in given.students:
        found[student] = costs(student, [*methods(given), *map(str, given.against)], setting, given.turns)
        print(f"**{student}**\n\n{render(found[student], setting)}\n", flush=True)
        if report is not None and given.out is not None:
            note(report, student, found[student])
            given.out.write_text(json.dumps(report, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return found


def arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    listed = {"type": lambda text: text.split(",")}
    parser.add_argument("--students", **listed, default=None, help="cifar:resnet18,timm:resnet18")
    parser.add_argument("--methods", **listed, default=None, help="frskd,kd: these alone; all of the task otherwise")
    parser.add_argument("--against", type=Path, nargs="*", default=[], metavar="FILE.py", help="see the file's head")
    parser.add_argument("--turns", type=at_least(2), default=7, help="of each method, at least 2")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    add_options(parser)
    given = parser.parse_args(words)
    for path in given.against:
        if not path.is_file():
            parser.error(f"--against: there is no file {path}")
    for name in given.methods or ():
        find_method(name)  # an unknown one is refused before anything is measured
    given.students = given.students or {"classification": ["cifar:resnet18"]}.get(given.kind, ["smp:Unet/resnet18"])
    return given


def methods(given: argparse.Namespace) -> list[str]:
    """Those asked for, or all of the task; plain training first."""
    fit = [name for name in list_methods() if given.kind in list_tasks(find_method(name).outputs)]
    return ["baseline", *(name for name in given.methods or fit if name != "baseline")]


def costs(student: str, names: list[str], setting: Setting, turns: int) -> dict[str, Cost]:
    """The cost of every method that takes the student; each takes turns with plain training."""
    plain, found = stepper("baseline", student, setting), {}
    alone = count_costs(plain)
    for name in names:
        try:
            own = stepper(name, student, setting)
        except ValueError as error:
            tell(f"{name:18} left out: {error}")
            continue
        found[name] = cost(own, plain, alone, turns)
        tell(f"{name:18} {found[name].slowdown.told()} x")
    return found


def cost(own: Stepper, plain: Stepper, alone: Counts, turns: int) -> Cost:
    counts = count_costs(own)
    compile_seconds = own.compile()  # before the plain step's, which `baseline` would find compiled
    plain.compile()
    theirs, ours = time_in_turns([plain, own], turns)
    own.close()  # a process may hold a few graphs only
    plain.close()
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return Cost(spread(ours), spread(ratios), counts, alone, compile_seconds)


def render(found: dict[str, Cost], setting: Setting) -> str:
    """The table of one student's costs."""
    head = [*HEAD.split("|"), *["compile s"] * (setting.compile != "false")]
    rows = []
    for name, each in found.items():
        cells = [name, each.seconds.told(".4f"), each.slowdown.told(), f"{setting.batch / each.seconds.median:,.0f}"]
        cells += [f"{each.counts.memory / 2**20:,.1f}", f"{each.memory:.2f}"]
        cells += [f"{each.counts.flops / 1e9 / setting.batch:.3f}", f"{each.flops:.2f}", f"{each.counts.rows:g}"]
        cells += [f"{each.counts.student:,}", f"{each.counts.training_only:,}"]
        rows.append([*cells, *[f"{each.compile_seconds:.1f}"] * (setting.compile != "false")])
    return markdown_table(head, rows)


def opened(path: Path, setting: Setting) -> dict[str, Any]:
    """What `path` holds, or an empty report; ends the program where it was measured in another way."""
    here = {"machine": setting.told(), "batch": setting.batch, "classes": setting.classes}
    report = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {**here, "students": {}}
    for key, value in here.items():
        if report[key] != value:
            raise SystemExit(f"{path} was measured with {key} {report[key]!r}, not {value!r}; give another --out")
    return report


def note(report: dict[str, Any], student: str, found: dict[str, Cost]) -> None:
    """Puts a student's numbers into the report, beside those of other methods."""
    there = report["students"].setdefault(student, {})
    there["baseline_seconds"] = round(found["baseline"].seconds.median, 5)
    for name, each in found.items():
        if name == "baseline" or name.endswith(".py"):
            continue
        low, median, high = (round(value, 3) for value in each.slowdown)
        told = {"ratios": median, "spread": [low, high], "memory": each.memory, "flops": each.flops}
        for column, value in told.items():
            there.setdefault(column, {})[name] = round(value, 3) if isinstance(value, float) else value
        there.setdefault("rows", {})[name] = each.counts.rows


if __name__ == "__main__":
    ended(main)
