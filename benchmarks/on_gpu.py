"""Everything that a GPU is wanted for, by one command: correctness, then step times, then epochs, then whole runs.

    python benchmarks/on_gpu.py --data torchvision:CIFAR10 data.root=/data --out build/gpu --minutes 9

stops cleanly after the minutes given, and the same command goes on where it stopped, in the middle of a training too,
until it says that all is done. Under `--out`: `page.md` with every table, `checks.md`, METHOD-metrics.jsonl of the
trainings, and their run folders. `make bench-gpu DATA=...` is the same.

`--device cpu --quick` tries every line of it at the smallest size. Cost: on a recent card about 10 minutes and the
trainings, 200 epochs of CIFAR-10 each with the plain network and with FRSKD.
"""

import argparse
import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import NamedTuple

import checks
from bench import HERE, versions
from harness import chip, device
from report import Page, tell
from selfdistill import list_methods
from selfdistill.report.markdown import markdown_table
from selfdistill.runs.folder import Run
from selfdistill.runs.records import EndRecord

RECIPE = HERE.parent / "recipes/cifar100/resnet18_frskd.yaml"
SPARE = 20.0  # seconds: what is begun with fewer left would hardly get anywhere


class Extent(NamedTuple):
    """How much is done."""

    methods: list[str]  # whose correctness is checked
    overhead: dict[str, str]  # heading -> words for overhead.py
    throughput: dict[str, str]
    training: str  # words of the recipe, beside data and method


STEPS = "--students cifar:resnet18 --classes 10 --batch 128 --precision bf16"
FULL = Extent(
    list_methods(),
    {
        "Steps": f"{STEPS} --methods frskd,deep_supervision,sla,hsakd_teacher",
        "Steps, compiled": f"{STEPS} --methods frskd --compile true",
        "Steps, compiled with CUDA graphs": f"{STEPS} --methods frskd --compile graphs",
        "Steps of every method": f"{STEPS} --turns 3",
    },
    {
        f"Epochs, batches of {batch}{', CUDA graphs' * (way == 'graphs')}": f"student=cifar:resnet18 batch_size={batch}"
        f" --precision bf16 --compile {way}"
        for batch in (128, 256, 512)
        for way in ("true", "graphs")
    },
    "epochs=200 precision=bf16",
)
TINY = "--students cifar:resnet8 --methods frskd --size 8 --batch 4 --turns 2"
QUICK = Extent(
    ["frskd", "dlb"],
    {"Steps": TINY, "Steps in bfloat16": f"{TINY} --precision bf16"},
    {"Epochs, batches of 16": "student=cifar:resnet8 data.limit=40 batch_size=16 --epochs 2"},
    "student=cifar:resnet8 data.limit=40 epochs=2 batch_size=16",
)


class Work:
    """What has been done and what is left, in a folder that outlives the command."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.extent, self.device = given, QUICK if given.quick else FULL, given.device
        self.out, self.until = given.out, time.monotonic() + 60 * given.minutes
        self.out.mkdir(parents=True, exist_ok=True)
        self.page = Page(self.out / "page.md", f"{chip(self.device)}, {date.today():%B %Y}\n\n{versions()}")
        self.words = [f"data={given.data}", *given.words]

    @property
    def left(self) -> float:
        return self.until - time.monotonic()

    def go(self) -> bool:
        """Does what there is time for; whether all is done then."""
        return all(done for part in (self.check, self.measure, self.train) for done in part())

    def check(self) -> Iterator[bool]:
        """Correctness first: numbers of a wrong step are worth nothing."""
        file = self.out / "checks.json"
        found: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
        for name in checks.names(self.extent.methods):
            if name in found:
                continue
            if self.left < SPARE:
                yield False
                return
            found[name] = checks.told(name, self.device)
            tell(f"{name}: {found[name]}")
            file.write_text(json.dumps(found, indent=1))
        rows = [[name, each] for name, each in found.items()]
        (self.out / "checks.md").write_text(markdown_table(["check", "found"], rows) + "\n", encoding="utf-8")
        yield True

    def measure(self) -> Iterator[bool]:
        """Step times and epochs, each table as soon as it is there."""
        tables = [(heading, "overhead.py", words.split()) for heading, words in self.extent.overhead.items()]
        recipe = [*self.words, f"machine.device={self.device.type}"]
        for heading, words in self.extent.throughput.items():
            tables.append((heading, "throughput.py", [*recipe, *words.split()]))
        for heading, script, words in tables:
            words += ["--device", str(self.device)] if script == "overhead.py" else []
            command = shlex.join(["python", f"benchmarks/{script}", *words])
            if self.page.holds(heading, command):
                continue
            yield self.left > SPARE and self.measured(heading, command, [str(HERE / script), *words])

    def measured(self, heading: str, command: str, words: list[str]) -> bool:
        """Puts what a script prints on the page; what it cannot do is told there too."""
        try:
            done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=max(1.0, self.left))
        except subprocess.TimeoutExpired:
            tell(f"{heading}: no time left; it is begun anew")
            return False
        last = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        self.page.put(heading, command, f"failed: {last}" if done.returncode else done.stdout)
        tell(heading)
        return True

    def train(self) -> Iterator[bool]:
        """The plain network and FRSKD, in as many slices as it takes."""
        for method in ("baseline", "frskd"):
            run = self.out / f"runs/{method}"
            if is_finished(run):
                continue
            if self.left < SPARE or not self.trained(method, run):
                yield False
                return
        methods = {method: self.out / f"runs/{method}" for method in ("baseline", "frskd")}
        for method, run in methods.items():
            shutil.copyfile(run / "metrics.jsonl", self.out / f"{method}-metrics.jsonl")
        self.page.put("Trainings", self.command("METHOD", Path("RUN")), training_table(methods))
        yield True

    def command(self, method: str, run: Path) -> str:
        words = [*self.words, f"method={method}", *self.extent.training.split(), f"machine.device={self.device.type}"]
        return shlex.join(["selfdistill", "train", str(RECIPE.relative_to(HERE.parent)), *words, f"out={run}"])

    def trained(self, method: str, run: Path) -> bool:
        """One slice of a training; whether it was the last."""
        started, going_on = time.monotonic(), (run / "last.pt").exists()
        if run.exists() and not going_on:
            shutil.rmtree(run)  # it was killed before its first checkpoint
        words = ["train", "--resume", str(run)] if going_on else shlex.split(self.command(method, run))[1:]
        words = [str(RECIPE) if word == str(RECIPE.relative_to(HERE.parent)) else word for word in words]
        process = subprocess.Popen([sys.executable, "-m", "selfdistill", *words], stdout=sys.stderr)
        try:
            process.wait(timeout=max(1.0, self.left))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)  # it writes a checkpoint
            process.wait()
        with (self.out / "slices.jsonl").open("a") as file:
            file.write(json.dumps({"method": method, "seconds": time.monotonic() - started}) + "\n")
        if process.returncode not in (0, 130, -signal.SIGTERM):  # the last: stopped before its first step
            sys.exit(f"training {method} failed; see above")
        return is_finished(run)


def is_finished(run: Path) -> bool:
    return (run / "metrics.jsonl").exists() and ended(run) is not None


def ended(run: Path) -> EndRecord | None:
    """The last record of a finished run."""
    return next((record for record in Run.open(run).records() if isinstance(record, EndRecord)), None)


def training_table(runs: dict[str, Path]) -> str:
    """The table of finished runs; seconds are those of all slices, start-up and evaluation included."""
    rows = []
    lines = (next(iter(runs.values())).parents[1] / "slices.jsonl").read_text().splitlines()
    slices = [json.loads(line) for line in lines]
    for method, run in runs.items():
        end, batch = ended(run), Run.open(run).recipe().batch_size or 0
        assert end is not None, f"{run} is not finished"
        seconds = [each["seconds"] for each in slices if each["method"] == method]
        pace = batch / end.seconds_per_step
        numbers = [f"{100 * end.scores.top1:.2f}", f"{end.scores.nll:.4f}", f"{pace:,.0f}"]
        rows.append([method, str(end.epoch), *numbers, f"{sum(seconds) / 60:.1f}", str(len(seconds))])
    return markdown_table(["method", "epochs", "top-1, %", "NLL, nats", "images / s", "minutes", "slices"], rows)


def arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("words", nargs="*", metavar="NAME=VALUE", help="settings of a recipe, for the data")
    parser.add_argument("--data", default="torchvision:CIFAR10", help="any source of a recipe")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"))
    parser.add_argument("--minutes", type=float, default=24 * 60.0)
    parser.add_argument("--device", type=device, default="cuda")
    parser.add_argument("--quick", action="store_true", help="a try at the smallest size")
    return parser.parse_intermixed_args(words)


def main(words: list[str] | None = None) -> bool:
    """Goes on with the work; whether all is done."""
    done = Work(arguments(words)).go()
    tell("all done" if done else "not all done; the same command goes on")
    return done


if __name__ == "__main__":
    sys.exit(0 if main() else 75)  # 75: try again, by sysexits.h
