"""Runs everything that needs a GPU by one command: correctness, then step times, then epochs, then whole runs.

    python benchmarks/on_gpu.py --data torchvision:CIFAR10 data.root=/data --out build/gpu --minutes 9

stops cleanly after `--minutes`. The same command continues where it stopped, even in the middle of a training, until it
says that all is done. The folder `--out` gets `page.md` with every table, `checks.md`, METHOD-metrics.jsonl of the
trainings, and their run folders. `make bench-gpu DATA=...` does the same.

`--device cpu --quick` tries every line at the smallest size. Cost: on a recent card about 10 minutes and the trainings,
200 epochs of CIFAR-10 each with the plain network and with FRSKD.
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
from bench import HERE, describe_versions
from harness import describe_chip, parse_device
from report import Page, tell
from selfdistill import list_methods
from selfdistill.report.markdown import markdown_table
from selfdistill.runs.folder import Run
from selfdistill.runs.records import EndRecord

RECIPE = HERE.parent / "recipes/cifar100/resnet18_frskd.yaml"
MIN_SECONDS = 20.0  # nothing is started with less time left


class Workload(NamedTuple):
    """How much to measure and to train."""

    methods: list[str]  # to check for correctness
    overhead: dict[str, str]  # heading -> words for overhead.py
    throughput: dict[str, str]
    training: str  # settings of the recipe, beside data and method


STEPS = "--students cifar:resnet18 --classes 10 --batch 128 --precision bf16"
FULL = Workload(
    list_methods(),
    {
        "Steps": f"{STEPS} --methods frskd,deep_supervision,sla,hsakd_teacher",
        "Steps, compiled": f"{STEPS} --methods frskd --compile true",
        "Steps, compiled with CUDA graphs": f"{STEPS} --methods frskd --compile graphs",
        "Steps of every method": f"{STEPS} --turns 3",
    },
    {
        f"Epochs, batches of {batch}{suffix}": f"student=cifar:resnet18 batch_size={batch}"
        f" --precision bf16 --compile {mode}"
        for batch in (128, 256, 512)
        for mode, suffix in {"true": "", "graphs": ", CUDA graphs"}.items()
    },
    "epochs=200 precision=bf16",
)
TINY = "--students cifar:resnet8 --methods frskd --size 8 --batch 4 --turns 2"
QUICK = Workload(
    ["frskd", "dlb"],
    {"Steps": f"{TINY} --precision bf16"},
    {"Epochs, batches of 16": "student=cifar:resnet8 data.limit=40 batch_size=16 --epochs 2"},
    "student=cifar:resnet8 data.limit=40 epochs=2 batch_size=16",
)


class Work:
    """The work that is done and that is left, in a folder that outlives the command."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.workload, self.device = options, QUICK if options.quick else FULL, options.device
        self.out, self.deadline = options.out, time.monotonic() + 60 * options.minutes
        self.out.mkdir(parents=True, exist_ok=True)
        self.page = Page(
            self.out / "page.md", f"{describe_chip(self.device)}, {date.today():%B %Y}\n\n{describe_versions()}"
        )
        self.words = [f"data={options.data}", *options.words]

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def run(self) -> bool:
        """Works until the time is over; returns whether all is done."""
        return all(is_done for stage in (self.check, self.measure, self.train) for is_done in stage())

    def check(self) -> Iterator[bool]:
        """Runs the checks of correctness; they come first, since the numbers of a wrong step are worth nothing."""
        file = self.out / "checks.json"
        findings: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
        for name in checks.list_checks(self.workload.methods):
            if name in findings:
                continue
            if self.seconds_left < MIN_SECONDS:
                yield False
                return
            findings[name] = checks.report_check(name, self.device)
            tell(f"{name}: {findings[name]}")
            file.write_text(json.dumps(findings, indent=1))
        rows = [[name, finding] for name, finding in findings.items()]
        (self.out / "checks.md").write_text(markdown_table(["check", "found"], rows) + "\n", encoding="utf-8")
        yield True

    def measure(self) -> Iterator[bool]:
        """Measures step times and epochs; each table is written as soon as it is measured."""
        tables = [(heading, "overhead.py", words.split()) for heading, words in self.workload.overhead.items()]
        recipe = [*self.words, f"machine.device={self.device.type}"]
        for heading, words in self.workload.throughput.items():
            tables.append((heading, "throughput.py", [*recipe, *words.split()]))
        for heading, script, words in tables:
            words += ["--device", str(self.device)] if script == "overhead.py" else []
            command = shlex.join(["python", f"benchmarks/{script}", *words])
            if self.page.holds(heading, command):
                continue
            yield self.seconds_left > MIN_SECONDS and self.measure_table(heading, command, [str(HERE / script), *words])

    def measure_table(self, heading: str, command: str, words: list[str]) -> bool:
        """Writes the output of a script to the page, or its error; returns False if the time ran out."""
        try:
            timeout = max(1.0, self.seconds_left)
            process = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            tell(f"{heading}: no time left; it starts anew next time")
            return False
        last_line = (process.stderr.strip().splitlines() or ["no message"])[-1]
        self.page.put(heading, command, f"failed: {last_line}" if process.returncode else process.stdout)
        tell(heading)
        return True

    def train(self) -> Iterator[bool]:
        """Trains the plain network and FRSKD, in as many slices as needed."""
        for method in ("baseline", "frskd"):
            run = self.out / f"runs/{method}"
            if is_finished(run):
                continue
            if self.seconds_left < MIN_SECONDS or not self.train_slice(method, run):
                yield False
                return
        methods = {method: self.out / f"runs/{method}" for method in ("baseline", "frskd")}
        for method, run in methods.items():
            shutil.copyfile(run / "metrics.jsonl", self.out / f"{method}-metrics.jsonl")
        self.page.put("Trainings", self.format_command("METHOD", Path("RUN")), render_trainings(methods))
        yield True

    def format_command(self, method: str, run: Path) -> str:
        words = [*self.words, f"method={method}", *self.workload.training.split(), f"machine.device={self.device.type}"]
        return shlex.join(["selfdistill", "train", str(RECIPE.relative_to(HERE.parent)), *words, f"out={run}"])

    def train_slice(self, method: str, run: Path) -> bool:
        """Trains until the time is over; returns whether the training is finished."""
        started, has_checkpoint = time.monotonic(), (run / "last.pt").exists()
        if run.exists() and not has_checkpoint:
            shutil.rmtree(run)  # it was killed before its first checkpoint
        words = ["train", "--resume", str(run)] if has_checkpoint else shlex.split(self.format_command(method, run))[1:]
        words = [str(RECIPE) if word == str(RECIPE.relative_to(HERE.parent)) else word for word in words]
        process = subprocess.Popen([sys.executable, "-m", "selfdistill", *words], stdout=sys.stderr)
        try:
            process.wait(timeout=max(1.0, self.seconds_left))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)  # it writes a checkpoint
            process.wait()
        with (self.out / "slices.jsonl").open("a") as file:
            file.write(json.dumps({"method": method, "seconds": time.monotonic() - started}) + "\n")
        if process.returncode not in (0, 130, -signal.SIGTERM):  # SIGTERM: stopped before its first step
            sys.exit(f"training {method} failed; see above")
        return is_finished(run)


def is_finished(run: Path) -> bool:
    return (run / "metrics.jsonl").exists() and read_end(run) is not None


def read_end(run: Path) -> EndRecord | None:
    """The end record of a run; None if it is not finished."""
    return next((record for record in Run.open(run).records() if isinstance(record, EndRecord)), None)


def render_trainings(runs: dict[str, Path]) -> str:
    """A table of finished runs; minutes are those of all slices, with start-up and evaluation."""
    rows = []
    lines = (next(iter(runs.values())).parents[1] / "slices.jsonl").read_text().splitlines()
    slices = [json.loads(line) for line in lines]
    for method, run in runs.items():
        end, batch = read_end(run), Run.open(run).recipe().batch_size or 0
        assert end is not None, f"{run} is not finished"
        seconds = [entry["seconds"] for entry in slices if entry["method"] == method]
        images_per_second = batch / end.seconds_per_step
        numbers = [f"{100 * end.scores.top1:.2f}", f"{end.scores.nll:.4f}", f"{images_per_second:,.0f}"]
        rows.append([method, str(end.epoch), *numbers, f"{sum(seconds) / 60:.1f}", str(len(seconds))])
    return markdown_table(["method", "epochs", "top-1, %", "NLL, nats", "images / s", "minutes", "slices"], rows)


def parse_arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("words", nargs="*", metavar="NAME=VALUE", help="settings of a recipe, for the data")
    parser.add_argument("--data", default="torchvision:CIFAR10", help="any data source of a recipe")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"))
    parser.add_argument("--minutes", type=float, default=24 * 60.0)
    parser.add_argument("--device", type=parse_device, default="cuda")
    parser.add_argument("--quick", action="store_true", help="a try at the smallest size")
    return parser.parse_intermixed_args(words)


def main(words: list[str] | None = None) -> bool:
    """Continues the work; returns whether all is done."""
    is_done = Work(parse_arguments(words)).run()
    tell("all done" if is_done else "not all done; the same command continues")
    return is_done


if __name__ == "__main__":
    sys.exit(0 if main() else 75)  # 75: try again, by sysexits.h
