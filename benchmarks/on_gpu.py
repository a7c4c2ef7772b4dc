"""Runs everything that needs a GPU by one command: correctness, then step times, then epochs, then whole runs.

    python benchmarks/on_gpu.py --data torchvision:CIFAR10 data.root=/data --out build/gpu --minutes 9

stops cleanly after `--minutes`. The same command continues where it stopped, even in the middle of a training, until it
says that all is done. The folder `--out` gets `page.md` with every table, `checks.md`, and the folder of each
comparison. `make bench-gpu DATA=...` does the same. Checks run in `--jobs` processes at a time, and so do compilers,
whose kernels the tables then find in their cache; what is timed runs alone.

`--device cpu --quick` tries every line at the smallest size. Cost: on a recent card about 10 minutes and the
comparisons, `--epochs` of CIFAR-10 with `--seeds` seeds for the plain network, FRSKD, and the plain network trained for
as long as FRSKD takes.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch

import checks
from bench import HERE, describe_versions
from harness import at_least, describe_chip, parse_device
from processes import run_together
from report import Page, tell
from selfdistill import list_methods
from selfdistill.report.columns import list_columns
from selfdistill.report.markdown import markdown_table
from selfdistill.tasks import find_task

STAGES = ["check", "measure", "train"]
MIN_SECONDS = 20.0  # nothing is started with less time left
SHOWN = [
    "method",
    "seeds",
    "top-1, %",
    "points",
    "points at equal time",
    "NLL, nats",
    "ECE, %",
    "slowdown",
    "training s",
]


class Workload(NamedTuple):
    """How much to measure and to train."""

    methods: list[str]  # to check for correctness
    steps: dict[str, str]  # heading -> words for overhead.py
    epochs: dict[str, str]  # heading -> words for throughput.py
    trainings: dict[str, str]  # heading -> words for `selfdistill compare`, beside data, length and seeds


RESNET18 = "--students cifar:resnet18 --classes 10 --precision bf16"
WRN = "--students cifar:wrn-16-2 --classes 10 --precision bf16 --batch 128 --methods frskd"
RESNET50 = "--students timm:resnet50 --classes 1000 --size 224 --batch 128 --precision bf16 --methods frskd --turns 3"
UNET = (
    "--task segmentation --students smp:Unet/resnet18 --classes 19 --size 512 --batch 16 --precision bf16 "
    "--methods frskd --turns 3"
)
LEADING = "--methods frskd,deep_supervision,sla,hsakd_teacher --turns 5"
FULL = Workload(
    list_methods(),
    {
        "ResNet-18, 32 pixels, batches of 128": f"{RESNET18} --batch 128 {LEADING}",
        "ResNet-18, 32 pixels, batches of 512": f"{RESNET18} --batch 512 --methods frskd --turns 3",
        "ResNet-18, 32 pixels, batches of 128, compiled": f"{RESNET18} --batch 128 --methods frskd --compile true "
        "--turns 5",
        "ResNet-18, 32 pixels, batches of 128, CUDA graphs": f"{RESNET18} --batch 128 --methods frskd --compile graphs "
        "--turns 5",
        "ResNet-50, 224 pixels": RESNET50,
        "U-Net, 512 pixels": UNET,
        "ResNet-50, 224 pixels, compiled": f"{RESNET50} --compile true",
        "U-Net, 512 pixels, compiled": f"{UNET} --compile true",
        "WRN-16-2, 32 pixels": WRN,
        "WRN-16-2, 32 pixels, CUDA graphs": f"{WRN} --compile graphs",
    },
    {
        f"Epochs of ResNet-18, batches of {batch}, CUDA graphs": f"student=cifar:resnet18 batch_size={batch} "
        "--precision bf16 --compile graphs"
        for batch in (128, 512)
    },
    {
        "ResNet-18 on CIFAR-10": "student=cifar:resnet18 batch_size=128 precision=bf16 machine.compile=graphs",
        "WRN-16-2 on CIFAR-10": "student=cifar:wrn-16-2 batch_size=128 precision=bf16 machine.compile=graphs",
    },
)
TINY = "--students cifar:resnet8 --methods frskd --size 8 --batch 4 --turns 2"
QUICK = Workload(
    ["frskd", "dlb"],
    {"Steps": f"{TINY} --precision bf16"},
    {"Epochs, batches of 16": "student=cifar:resnet8 data.limit=40 batch_size=16 --epochs 2"},
    {"ResNet-8": "student=cifar:resnet8 data.limit=40 batch_size=16"},
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
        stages = {"check": self.check, "measure": self.measure, "train": self.train}
        return all(is_done for name in self.options.stages for is_done in stages[name]())

    def check(self) -> Iterator[bool]:
        """Runs the checks of correctness; they come first, since the numbers of a wrong step are worth nothing."""
        file = self.out / "checks.json"
        findings: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
        missing = [name for name in checks.list_checks(self.workload.methods) if name not in findings]
        with self.fill_compiler_caches():
            for name, finding in self.run_checks(missing):
                findings[name] = finding
                tell(f"{name}: {finding}")
                file.write_text(json.dumps(findings, indent=1))
        rows = [[name, finding] for name, finding in findings.items()]
        (self.out / "checks.md").write_text(markdown_table(["check", "found"], rows) + "\n", encoding="utf-8")
        yield all(name in findings for name in missing)

    def run_checks(self, names: Sequence[str]) -> Iterator[tuple[str, str]]:
        """What each check found, for as long as there is time."""
        if self.options.jobs == 1:
            for name in names:
                if self.seconds_left < MIN_SECONDS:
                    return
                yield name, checks.report_check(name, self.device)
            return
        pool = ProcessPoolExecutor(
            self.options.jobs, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
        )
        found = {pool.submit(checks.report_check, name, self.device): name for name in names}
        try:
            for future in as_completed(found, timeout=max(1.0, self.seconds_left)):
                yield found[future], future.result()
        except TimeoutError:
            pass
        finally:
            pool.shutdown(cancel_futures=True)

    def list_tables(self) -> Iterator[tuple[str, list[str]]]:
        """Headings of the page, and the command of each."""
        device = ["--device", str(self.device)]
        for heading, words in self.workload.steps.items():
            yield heading, ["overhead.py", *words.split(), *device]
        recipe = [*self.words, f"machine.device={self.device.type}"]
        for heading, words in self.workload.epochs.items():
            yield heading, ["throughput.py", *recipe, *words.split()]

    @contextmanager
    def fill_compiler_caches(self) -> Iterator[None]:
        """Meanwhile compiles what the tables will compile, as compiling takes longer than measuring."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        quiet = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started = [
            subprocess.Popen([sys.executable, str(HERE / script), *words, "--turns", "2"], **quiet)
            for heading, (script, *words) in self.list_tables()
            if self.options.jobs > 1 and script == "overhead.py" and "--compile" in words
            if not self.holds(heading, [script, *words])
        ]
        yield
        for process in started:
            try:
                process.wait(timeout=max(1.0, self.seconds_left))
            except subprocess.TimeoutExpired:
                process.kill()

    def holds(self, heading: str, words: Sequence[str]) -> bool:
        return self.page.holds(heading, format_script(words))

    def measure(self) -> Iterator[bool]:
        """Measures step times and epochs; each table is written as soon as it is measured."""
        for heading, words in self.list_tables():
            if not self.holds(heading, words):
                yield self.seconds_left > MIN_SECONDS and self.measure_table(heading, words)

    def measure_table(self, heading: str, words: Sequence[str]) -> bool:
        """Writes the output of a script to the page, or its error; returns False if the time ran out."""
        try:
            timeout = max(1.0, self.seconds_left)
            command = [sys.executable, str(HERE / words[0]), *words[1:]]
            process = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
        except subprocess.TimeoutExpired:
            tell(f"{heading}: no time left; it starts anew next time")
            return False
        printed = process.stdout
        if process.returncode:
            printed = f"failed: {(process.stderr.strip().splitlines() or ['no message'])[-1]}"
        self.page.put(heading, format_script(words), printed)
        tell(f"{heading}: {printed}")
        return True

    def train(self) -> Iterator[bool]:
        """Trains the comparisons, in as many slices as needed."""
        for heading in self.workload.trainings:
            folder = self.out / make_name(heading)
            command = self.format_comparison(heading, folder)
            if self.page.holds(heading, shlex.join(command)):
                continue
            if self.seconds_left < MIN_SECONDS or not self.train_slice(command):
                yield False
                return
            self.page.put(heading, shlex.join(command), render_comparison(folder))
            shutil.copyfile(folder / "compare.json", self.out / f"{folder.name}.json")
        yield True

    def format_comparison(self, heading: str, folder: Path) -> list[str]:
        """The command of a comparison, with the plain network trained for as long as the method takes."""
        options = self.options
        settings = self.workload.trainings[heading].split()
        settings += [f"epochs={options.epochs}", f"evaluate_every={options.epochs}", f"seeds={options.seeds}"]
        settings += ["methods=baseline,frskd", "controls=equal_cost", f"machine.device={self.device.type}"]
        return ["selfdistill", "compare", *self.words, *settings, f"out={folder}"]

    def train_slice(self, command: Sequence[str]) -> bool:
        """Trains until the time is over, in processes that share the runs; returns whether all are finished."""
        words = [sys.executable, "-m", "selfdistill", *command[1:]]
        codes = run_together(words, self.options.trainings, self.seconds_left, stdout=sys.stderr)
        failures = [code for code in codes if code not in (0, 130, -signal.SIGTERM)]  # SIGTERM: before its first step
        if failures:
            sys.exit(f"a comparison failed with code {failures[0]}; see above")
        return not any(codes)


def format_script(words: Sequence[str]) -> str:
    return shlex.join(["python", f"benchmarks/{words[0]}", *words[1:]])


def make_name(heading: str) -> str:
    """A heading as the name of a file.

    >>> make_name("ResNet-18, 32 pixels")
    'resnet-18-32-pixels'
    """
    return "-".join(heading.lower().replace(",", "").split())


def render_comparison(folder: Path) -> str:
    """A table of the arms of a comparison, and its verdicts."""
    compared = json.loads((folder / "compare.json").read_text(encoding="utf-8"))
    columns = list_columns([find_task("classification")], compared["rows"])
    rows = [[columns[title](row) for title in SHOWN] for row in compared["rows"]]
    return "\n\n".join([markdown_table(SHOWN, rows), *(verdict["sentence"] for verdict in compared["verdicts"])])


def parse_arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("words", nargs="*", metavar="NAME=VALUE", help="settings of a recipe, for the data")
    parser.add_argument("--data", default="torchvision:CIFAR10", help="any data source of a recipe")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"))
    parser.add_argument("--minutes", type=float, default=24 * 60.0)
    parser.add_argument("--device", type=parse_device, default="cuda")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="what is to be done")
    parser.add_argument("--jobs", type=at_least(1), default=1, help="checks and compilers at a time")
    parser.add_argument("--trainings", type=at_least(1), default=1, help="processes that share the trainings")
    parser.add_argument("--epochs", type=at_least(1), default=200)
    parser.add_argument("--seeds", type=at_least(1), default=3)
    parser.add_argument("--quick", action="store_true", help="a try at the smallest size")
    return parser.parse_intermixed_args(words)


def main(words: list[str] | None = None) -> bool:
    """Continues the work; returns whether all is done."""
    is_done = Work(parse_arguments(words)).run()
    tell("all done" if is_done else "not all done; the same command continues")
    return is_done


if __name__ == "__main__":
    sys.exit(0 if main() else 75)  # 75: try again, by sysexits.h
