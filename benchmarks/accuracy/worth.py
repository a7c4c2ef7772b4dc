"""Does self-distillation pay? Trains the arms of families.py by the rules of PROTOCOL.md, and measures their prices.

    python benchmarks/accuracy/worth.py train part --cifar10 /my/cifar10 --seeds 0 1 2 --processes 2
    python benchmarks/accuracy/worth.py prices part --cifar10 /my/cifar10
    python benchmarks/accuracy/worth.py collect

`train` may be stopped and started at any time, and several may work on the same folder. Words behind `--` are settings
of the machine, such as `machine.device=cuda`. `collect` writes what is there to results/worth-FAMILY.json.
"""

import argparse
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from families import FAMILIES, FAMILY, LEVERS, Family  # noqa: E402

from report import run_main, tell  # noqa: E402
from selfdistill.commands.arms import build_arm, build_arm_recipe, choose_run_path  # noqa: E402
from selfdistill.commands.planning import find_end  # noqa: E402
from selfdistill.commands.recipes import read_words  # noqa: E402
from selfdistill.commands.study import train_arm  # noqa: E402
from selfdistill.commands.train import Manner  # noqa: E402
from selfdistill.config.recipe import Recipe  # noqa: E402
from selfdistill.data import OpenedData  # noqa: E402
from selfdistill.report.finished import FinishedRun, read_finished  # noqa: E402
from selfdistill.runs.environment import describe_environment  # noqa: E402
from selfdistill.runs.files import write_text  # noqa: E402
from selfdistill.runs.folder import Run  # noqa: E402
from selfdistill.runs.lock import FolderTaken  # noqa: E402
from selfdistill.tasks import complete_recipe  # noqa: E402
from selfdistill.training.device import choose_device  # noqa: E402
from selfdistill.training.pilot import take_turns  # noqa: E402

RESULTS, RUNS = HERE / "results", HERE.parents[1] / "build/worth"
NEVER = 100_000  # epochs between two scorings: only the last epoch counts


class Job(NamedTuple):
    """A run of the study."""

    family: str
    arm: str
    seed: int


def list_arms(family: Family, arms: Sequence[str], budgets: Sequence[int], lengths: Sequence[int]) -> list[str]:
    """Every arm with its length, shortest first; the plain network has lengths of its own."""
    timed = [(epochs, f"baseline+epochs={epochs}") for epochs in lengths]
    timed += [(epochs, f"{arm}+epochs={epochs}") for epochs in budgets for arm in arms]
    return [arm for _, arm in sorted(timed, key=lambda pair: pair[0])]


class Trainer:
    """Trains runs of the study, one after the other; what another process holds is left to it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.opened = options, {name: OpenedData() for name in FAMILIES}
        self.bases: dict[str, Recipe] = {}

    def list_jobs(self) -> Iterator[Job]:
        """Every run that was asked for: all arms with the first seed, then all with the next."""
        for seed, name in itertools.product(self.options.seeds, self.options.families):
            family = FAMILIES[name]
            budgets = self.options.budgets or family.budgets
            lengths = family.lengths if self.options.lengths is None else self.options.lengths
            for arm in list_arms(family, self.options.arms, budgets, lengths):
                yield Job(name, arm, seed)

    def read_base(self, name: str) -> Recipe:
        if name not in self.bases:
            family, options = FAMILIES[name], self.options
            words = [*family.words.split(), f"evaluate_every={NEVER}", *options.words]
            if family.data is not None:
                if (folder := getattr(options, family.data)) is None:
                    raise ValueError(f"the family {name} needs --{family.data}, a folder of Parquet files")
                words.append(f"data={folder}")
            self.bases[name] = complete_recipe(read_words(words))
        return self.bases[name]

    def train(self) -> int:
        """Trains what is missing; gives how many runs are not there at the end."""
        missing = [job for job in self.list_jobs() if not self.is_done(job)]
        for job in missing:
            if not self.is_done(job):
                self.train_job(job)
        return sum(not self.is_done(job) for job in missing)

    def get_path(self, job: Job) -> Path:
        return choose_run_path(self.options.out / job.family, job.arm, job.seed)

    def is_done(self, job: Job) -> bool:
        return find_end(self.get_path(job)) is not None

    def train_job(self, job: Job) -> None:
        recipe = build_arm_recipe(self.read_base(job.family), job.arm)
        started = time.monotonic()
        try:
            experiment = build_arm(recipe, self.get_path(job), job.seed, self.opened[job.family])
            train_arm(experiment, Manner(title=f"{job.family}, {job.arm}, seed {job.seed}"))
        except FolderTaken:
            return
        except ValueError as error:  # a try that failed is a result
            tell(f"{job}: {error}")
            return
        tell(f"{job.family}, {job.arm}, seed {job.seed}: {time.monotonic() - started:.0f} s")


def share(words: Sequence[str], processes: int, minutes: float) -> None:
    """Runs as many processes of this command, which share the runs, and stops them when the time is over."""
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    command = [sys.executable, __file__, *words, "--processes", "1"]
    end = time.monotonic() + 60 * minutes
    started = []
    for _ in range(processes):
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
        time.sleep(0.3)  # so that they do not reach for the same runs
    for process in started:
        try:
            process.wait(timeout=max(1.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)  # it writes a checkpoint
    for process in started:
        process.wait()


def collect(runs: Path, results: Path) -> None:
    """Writes every finished run of each family as plain values, beside those that are written already."""
    for name in FAMILIES:
        file = results / f"worth-{name}.json"
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        arms = {arm: {run["seed"]: run for run in of_arm} for arm, of_arm in known.items()}
        for path in sorted((runs / name).glob("*/recipe.yaml")):
            finished = read_finished(Run.open(path.parent), trust=True)
            if finished is not None:
                arms.setdefault(path.parent.name.rpartition("-s")[0], {})[finished.seed] = list_values(finished)
        if arms:
            plain = {arm: [of_arm[seed] for seed in sorted(of_arm)] for arm, of_arm in sorted(arms.items())}
            write_text(file, json.dumps(plain, indent=1) + "\n")
            tell(f"written: {file}, {sum(map(len, plain.values()))} runs")


def list_values(finished: FinishedRun) -> dict[str, Any]:
    """The scores of a run, shares in [0, 1] and nats, and what it was trained on."""
    end, environment = finished.end, finished.run.environment()
    split = "test" if "test" in finished.splits else end.split
    kept = {name: value for name, value in finished.get_scores(split)._asdict().items() if isinstance(value, float)}
    train = None if end.train_scores is None else end.train_scores.main
    values = {"seed": finished.seed, "split": split, **kept, "train_score": train, "step": end.step}
    if environment is not None:
        values |= {"machine": (environment.gpus or [environment.cpu])[0], "torch": environment.versions["torch"]}
    return values


def measure_prices(options: argparse.Namespace) -> None:
    """Writes how many plain steps a step of each arm takes on this machine, taking turns with the plain one."""
    trainer = Trainer(options)
    for name in options.families:
        base = trainer.read_base(name)
        path = options.results / f"prices-{name}.json"
        for arm in options.arms:
            tell(f"measuring steps of {arm}")
            pair = [
                build_arm(build_arm_recipe(base, name_of), RUNS, 0, trainer.opened[name])
                for name_of in ("baseline", arm)
            ]
            ratios = take_turns(*pair).ratios
            low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
            known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            machine = known.setdefault(f"{describe_environment().cpu}, {choose_device(base)}", {})
            machine[arm] = {"slowdown": median, "low": low, "high": high, "turns": len(ratios)}
            write_text(path, json.dumps(known, indent=1) + "\n")


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("action", choices=["train", "prices", "collect"])
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=", ".join(FAMILIES))
    parser.add_argument("--cifar10", help="a folder with CIFAR-10 as Parquet files")
    parser.add_argument("--camvid", help="a folder with CamVid as Parquet files")
    parser.add_argument("--arms", nargs="+", default=[*LEVERS, *FAMILY])
    parser.add_argument("--budgets", nargs="+", type=int, help="epochs of the arms, instead of the family's own")
    parser.add_argument("--lengths", nargs="*", type=int, help="epochs of the plain network, likewise")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=24 * 60.0)
    parser.add_argument("--out", type=Path, default=RUNS, help="where the runs lie")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where prices and scores are written")
    words = sys.argv[1:] if words is None else words
    split = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:split])
    options.words = words[split + 1 :]
    if options.action == "collect":
        collect(options.out, options.results)
    elif options.action == "prices":
        measure_prices(options)
    elif options.processes > 1:
        share(words[:split], options.processes, options.minutes)
    elif missing := Trainer(options).train():
        tell(f"{missing} runs are not there; other processes may still train them")


if __name__ == "__main__":
    run_main(main)
