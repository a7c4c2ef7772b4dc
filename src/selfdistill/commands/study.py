"""A comparison from its plan to its table."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..build.arms import build_arm_recipe
from ..config.recipe import Recipe
from ..data import OpenedData
from ..distributed import is_first_process, share_from_first, world_size
from ..errors import escape_controls
from ..report.comparison import Comparison, compare_runs
from ..report.earlier import add_earlier_runs
from ..report.plan import Pace, Plan, read_plan, write_plan
from ..report.verdict import Rule
from ..runs.environment import describe_environment
from ..runs.files import write_text
from ..runs.folder import Run
from ..runs.lock import FolderTaken
from ..training.checkpoint import lock_run
from ..training.experiment import Experiment
from .arms import build_arm, find_run_paths, is_done
from .console import console, say, tell
from .controls import EQUAL_COST, choose_equal_cost, is_as_cheap, list_control_arms
from .planning import (
    Planned,
    estimate_seconds,
    find_end,
    fit_budget,
    format_seconds,
    hold_folder,
    measure_paces,
    measure_spent,
    order_runs,
)
from .report import write_report
from .train import AS_COMMAND, Manner, train_new_run, train_on

GO_ON = "run the same line again to go on"


class Request(NamedTuple):
    """What the words of a comparison ask for."""

    arms: list[str]
    seeds: list[int]
    controls: list[str]
    margin: float | None
    budget: float | None  # seconds
    base: Recipe
    carves: bool  # whether test images are held out where there are none
    auto: str | None = None  # the arm that auto among the arms stands for


class Study:
    """A comparison from its plan to its table."""

    def __init__(
        self, request: Request, folder: Path, opened: OpenedData, *, trust: bool, manner: Manner = AS_COMMAND
    ) -> None:
        self.request, self.folder, self.opened, self.trust = request, folder, opened, trust
        self.manner = manner._replace(go_on=GO_ON)
        self.seeds, self.baseline, self.methods = request.seeds, request.arms[0], request.arms[1:]
        self.controls = list_control_arms(request.base, request.arms, request.controls)
        self.recipes: dict[str, Recipe] = {}
        self.paths: dict[str, list[Path]] = {}
        self.resolved: dict[str, Recipe] = {}
        self.checked: dict[str, Experiment] = {}  # with the first seed, until it is trained
        self.seconds: dict[str, float] = {}  # that a run of an arm takes by the pilot; empty without a budget
        self.plan = Plan()
        self.add_arms([*request.arms, *self.controls])

    def add_arms(self, arms: Sequence[str]) -> None:
        """Builds the first run of each arm, which checks it, and tells what was chosen for it."""
        for arm in arms:
            self.recipes[arm] = build_arm_recipe(self.request.base, arm)
        for arm in arms:
            recipe = self.recipes[arm]
            self.paths[arm] = find_run_paths(self.folder, arm, self.seeds, recipe, trust=self.trust)
        for arm in arms:
            self.checked[arm] = self.build(Planned(arm, self.seeds[0]))
            self.resolved[arm] = self.checked[arm].recipe
        if is_first_process():
            for note in dict.fromkeys(note for arm in arms for note in self.checked[arm].notes):
                tell(f"note: {note}")

    def get_path(self, run: Planned) -> Path:
        return self.paths[run.arm][self.seeds.index(run.seed)]

    def build(self, run: Planned) -> Experiment:
        return build_arm(self.recipes[run.arm], self.get_path(run), run.seed, self.opened, trust=self.trust)

    def is_as_cheap(self, arm: str) -> bool:
        return is_as_cheap(self.checked[arm].method, self.recipes[arm], self.recipes[self.baseline])

    def make_plan(self) -> None:
        """Measures what has to be known, decides what is trained, and writes plan.json before the first run."""
        with hold_folder(self.folder):
            earlier = share_from_first(read_plan(self.folder)) or Plan()
            rule = choose_rule(self.request.margin, earlier)
            dearer = [arm for arm in self.methods if not self.is_as_cheap(arm)]
            pilot = self.measure(dearer, earlier.pilot)
            equal_cost: dict[str, str] = {}
            if EQUAL_COST in self.request.controls:
                slowdowns = {arm: pilot[arm].slowdown if arm in dearer else 1.0 for arm in self.methods}
                equal_cost = choose_equal_cost(self.recipes, self.methods, slowdowns)
                self.add_arms([arm for arm in dict.fromkeys(equal_cost.values()) if arm not in self.recipes])
            if self.request.budget:
                paces = {arm: pilot.get(arm, pilot[self.baseline]) for arm in self.recipes}
                self.seconds = {arm: estimate_seconds(self.checked[arm], pace) for arm, pace in paces.items()}
            arms = list(dict.fromkeys([*self.request.arms, *equal_cost.values(), *self.controls]))
            self.plan = Plan(
                **rule._asdict(),
                rule=rule.describe(),
                arms=arms,
                seeds=self.seeds,
                controls=[arm for arm in arms if arm not in self.request.arms],
                equal_cost=earlier.equal_cost | equal_cost,
                pilot=pilot,
                machine=earlier.machine or describe_environment().cpu,
                test_fraction=self.resolved[self.baseline].data.test_fraction,
                budget_seconds=self.request.budget,
                auto=self.request.auto or earlier.auto,
            )
            planned, dropped = self.note_runs()
            if is_first_process():
                self.tell_budget(planned, dropped)
                write_plan(self.plan, self.folder)

    def measure(self, dearer: Sequence[str], known: Mapping[str, Pace]) -> dict[str, Pace]:
        """What steps of the arms cost that a budget or a baseline of equal cost is chosen by, and what was known."""
        wanted = [*self.recipes] if self.request.budget else []
        wanted += dearer if EQUAL_COST in self.request.controls else []
        missing = [arm for arm in dict.fromkeys(wanted) if arm not in known]
        measured = measure_paces(self.recipes, missing, self.seeds[0], self.opened, trust=self.trust) if missing else {}
        return {**known, **measured}

    def note_runs(self) -> tuple[list[Planned], list[Planned]]:
        """Notes in the plan what is planned and dropped now, and the time spent."""
        planned, dropped, spent = self.choose_runs()
        names = {"planned": planned, "dropped": dropped}
        names = {key: [self.get_path(run).name for run in runs] for key, runs in names.items()}
        self.plan = self.plan.model_copy(update={**names, "spent_seconds": spent})
        return planned, dropped

    def choose_runs(self) -> tuple[list[Planned], list[Planned], float]:
        """The runs that are planned now, in their order, those beyond the budget, and the seconds spent."""
        runs = [Planned(arm, seed) for seed in self.seeds for arm in self.plan.arms]
        ended = [run for run in runs if find_end(self.get_path(run)) is not None]
        spent = measure_spent(map(self.get_path, ended))
        if not self.request.budget:
            return runs, [], spent
        expected = sum(self.seconds[run.arm] for run in ended)
        drift = spent / expected if expected else 1.0  # by which runs take longer than the pilot said
        first = [self.baseline, *self.methods[:1]]
        first += [longer for arm in first if (longer := self.plan.equal_cost.get(arm)) in self.plan.arms]
        planned, dropped = fit_budget(
            order_runs(self.plan.arms, list(dict.fromkeys(first)), self.seeds),
            self.request.budget - spent,
            lambda run: 0.0 if run in ended else drift * self.seconds[run.arm],
        )
        return planned, dropped, spent

    def tell_budget(self, planned: Sequence[Planned], dropped: Sequence[Planned]) -> None:
        """Says how far a budget reaches; raises `ValueError` where it reaches no run."""
        if self.request.budget is None:
            return
        budget, total = format_seconds(self.request.budget), sum(self.seconds[run.arm] for run in planned)
        if not planned:
            least = format_seconds(sum(self.seconds[arm] for arm in self.request.arms[:2]))
            raise ValueError(
                f"budget={budget} is too little: one seed of {self.baseline} and one more arm take {least}"
            )
        tell(f"{budget} reach for {len(planned)} of {len(planned) + len(dropped)} runs, about {format_seconds(total)}")
        if dropped:
            tell(f"dropped: {', '.join(self.get_path(run).name for run in dropped)}")

    def train(self) -> list[Path]:
        """Trains what is planned and not there yet; gives the runs that other processes train at the moment.

        What another process left unfinished is taken up in a further pass.
        """
        done: set[Planned] = set()
        while True:
            elsewhere: list[Planned] = []
            started, refused = len(done), set[Planned]()
            while (run := self.find_next(done | refused)) is not None:
                if self.train_run(run):
                    done.add(run)
                else:
                    refused.add(run)
                    elsewhere.append(run)
            if not elsewhere or len(done) == started:
                return [self.get_path(run) for run in elsewhere]

    def find_next(self, over: set[Planned]) -> Planned | None:
        """The first run of the plan that is not over; a budget is counted anew."""
        planned = share_from_first(self.choose_runs()[0])
        return next((run for run in planned if run not in over), None)

    def train_run(self, run: Planned) -> bool:
        """Trains a run unless it is finished; False where another process has it."""
        path = self.get_path(run)
        experiment = self.checked.pop(run.arm, None) if run.seed == self.seeds[0] else None
        recipe = self.resolved[run.arm].model_copy(update={"seed": run.seed, "out": str(path)})
        if share_from_first(is_done(path, recipe)):
            return True
        try:
            train_arm(experiment or self.build(run), self.manner._replace(title=f"{run.arm}, seed {run.seed}"))
        except FolderTaken:
            if world_size() > 1:
                raise  # the other processes of this training are in it by now
            return False
        return True

    def write(self, elsewhere: Sequence[Path], *, prints: bool = True) -> Comparison | None:
        """Prints and writes the table and the verdicts; what is written keeps the arms and seeds that it had.

        Gives what was asked for, None where no run is there yet.
        """
        there = {arm: [path for path in self.paths[arm] if (path / "recipe.yaml").exists()] for arm in self.plan.arms}
        there = {arm: paths for arm, paths in there.items() if paths}
        self.note_runs()
        if elsewhere:
            names = ", ".join(path.name for path in elsewhere)
            tell(f"note: other processes still train {names}; say the same line again when they have ended")
        if self.plan.dropped:
            tell(f"note: dropped for want of time: {', '.join(self.plan.dropped)}; a larger budget= adds them")
        if not there:
            return None
        with hold_folder(self.folder):
            asked = table = self.compare(there)
            if prints:
                show(table)
            whole = add_earlier_runs(there, self.folder)
            if whole != there:
                table = self.compare(whole)
                count = sum(map(len, whole.values()))
                tell(f"note: {self.folder / 'compare.md'} keeps the runs of the comparison before and shows {count}")
            write_tables(table, self.folder)
            write_plan(self.plan, self.folder)
            command = shlex.join(["selfdistill", "report", str(self.folder)])
            page = write_report(table, self.folder, command=command, controls=self.plan.controls, trust=self.trust)
            tell(f"written: {page}, to open in a browser")
        return asked

    def compare(self, paths: Mapping[str, Sequence[Path]]) -> Comparison:
        baseline = next(iter(paths))  # of the table that was written before, where it had more arms
        # the task is the one of the command line
        return compare_runs(paths, baseline, trust=True, rule=self.plan.get_rule(), equal_cost=self.plan.equal_cost)


def choose_rule(margin: float | None, earlier: Plan) -> Rule:
    """The rule of the verdicts: that of the plan, which was fixed before the first run."""
    rule = earlier.get_rule()
    if margin is None or not earlier.arms:
        return rule if margin is None else rule._replace(margin=margin)
    if margin != rule.margin:
        raise ValueError(
            f"margin={margin:g} comes too late: this comparison was begun with margin={rule.margin:g}, and a rule that "
            "is changed after the runs decides nothing; choose another out= for it"
        )
    return rule


def train_arm(experiment: Experiment, manner: Manner) -> None:
    """Trains a run of a comparison, from its last checkpoint where it was interrupted."""
    path, experiment = Path(experiment.recipe.out or ""), replace(experiment, notes=())  # which were told at first
    if not share_from_first((path / "recipe.yaml").exists()):  # which the first process is about to write
        train_new_run(experiment, manner=manner)
        return
    run = Run.open(path)
    with lock_run(run):
        if not share_from_first(find_end(path) is not None):  # another process may have ended it in the meantime
            train_on(experiment, run, manner=manner)


def show(comparison: Comparison) -> None:
    """Prints the table, what is to be said of it, and the verdicts."""
    screen = console()
    screen.print(comparison.rich())
    for sentence in comparison.sentences():
        say(escape_controls(sentence))
    for verdict in comparison.verdicts:
        say(escape_controls(verdict.sentence))


def write_tables(comparison: Comparison, folder: Path) -> None:
    """Writes the whole table as compare.md, .json, .csv and .tex."""
    kinds = {"md": comparison.markdown, "json": comparison.json, "csv": comparison.csv, "tex": comparison.latex}
    for suffix, write in kinds.items():
        write_text(folder / f"compare.{suffix}", write())
    tell(f"written: {', '.join(str(folder / f'compare.{suffix}') for suffix in kinds)}")
