"""What a comparison will train, decided before the first run and written into plan.json."""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from ..config.recipe import Recipe
from ..data import BatchSampler, OpenedData
from ..distributed import is_first_process, share_from_first
from ..report.plan import Pace
from ..runs.folder import Run
from ..runs.lock import FolderTaken, lock_folder
from ..runs.records import EndRecord
from ..training.experiment import Experiment
from ..training.optim import count_steps
from ..training.pilot import take_turns, time_scoring
from .arms import build_arm
from .console import tell

UNITS = {"h": 3600, "m": 60, "min": 60, "s": 1}
FIRST_SEEDS = 3  # with fewer no interval is possible, so these come before further controls
LONGEST_WAIT = 900  # seconds for another process's pilot


class Planned(NamedTuple):
    """A run of a comparison."""

    arm: str
    seed: int


def parse_budget(text: str) -> float:
    """Seconds of training time.

    >>> parse_budget("2h"), parse_budget("1h30m"), parse_budget("90s")
    (7200.0, 5400.0, 90.0)
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)(h|min|m|s)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"budget={text} is no time; write 2h, 90m, 1h30m or 45s")
    return float(sum(float(number) * UNITS[unit] for number, unit in parts))


@contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Keeps other processes from planning or writing the same comparison; they wait until this one is ready."""
    if not is_first_process():
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{folder} cannot be written ({error.strerror}); choose another `out=`") from error
    with _wait_for_lock(folder):
        yield


@contextmanager
def _wait_for_lock(folder: Path) -> Iterator[None]:
    started = time.monotonic()
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(lock_folder(folder))
                break
            except FolderTaken:
                if time.monotonic() - started > LONGEST_WAIT:
                    raise
                time.sleep(0.5)
        yield


def measure_paces(
    recipes: Mapping[str, Recipe], wanted: Sequence[str], seed: int, opened: OpenedData, *, trust: bool = False
) -> dict[str, Pace]:
    """What a step of each wanted arm costs, taking turns with the baseline, which is the first of the recipes."""
    baseline = next(iter(recipes))
    paces = {}
    for arm in wanted:
        if is_first_process():
            tell(f"measuring a few steps of {arm} beside {baseline}")
        pair = [build_arm(recipes[name], Path("pilot"), seed, opened, trust=trust) for name in (baseline, arm)]
        score_seconds = time_scoring(pair[1])
        turns = take_turns(*pair)
        low, median, high = turns.quartiles
        if arm == baseline:
            low = median = high = 1.0
        paces[arm] = Pace(
            slowdown=median,
            low=low,
            high=high,
            turns=len(turns.ratios),
            cost_per_step=turns.costs[1],
            seconds_per_step=turns.seconds[1],
            score_seconds=score_seconds,
        )
    return share_from_first(paces)


def estimate_seconds(experiment: Experiment, pace: Pace) -> float:
    """The time by the clock on the wall of a whole run: its steps and its scorings."""
    recipe = experiment.recipe
    plan = BatchSampler(len(experiment.train_set), recipe.batch_size, seed=recipe.seed, drop_last=recipe.data.drop_last)
    steps = count_steps(recipe, plan.steps_per_epoch)[1]
    scorings = steps / plan.steps_per_epoch / recipe.evaluate_every + 2  # and training and test images at the end
    return steps * pace.seconds_per_step + scorings * pace.score_seconds


def order_runs(arms: Sequence[str], first: Sequence[str], seeds: Sequence[int]) -> list[list[Planned]]:
    """Blocks of runs that mean something together, most informative first.

    `first` are the baseline, the first method and its baseline of equal cost: with them up to three seeds, then the
    further arms with these seeds, then all arms with the further seeds.
    """
    core, others = list(first), [arm for arm in arms if arm not in first]
    few, more = seeds[:FIRST_SEEDS], seeds[FIRST_SEEDS:]
    blocks = [[Planned(arm, seed) for arm in core] for seed in few]
    blocks += [[Planned(arm, seed) for seed in few] for arm in others]
    return blocks + [[Planned(arm, seed) for arm in group] for seed in more for group in (core, others) if group]


def fit_budget(
    blocks: Sequence[Sequence[Planned]], left: float, estimate: Callable[[Planned], float]
) -> tuple[list[Planned], list[Planned]]:
    """The runs that are planned and those that are dropped: blocks in their order for as long as time is `left`.

    `estimate` is 0 for a run that is there. Such runs are never dropped.
    """
    planned: list[Planned] = []
    dropped: list[Planned] = []
    for block in blocks:
        seconds = sum(map(estimate, block))
        if dropped or seconds > left:
            planned += [run for run in block if estimate(run) == 0]
            dropped += [run for run in block if estimate(run) > 0]
        else:
            planned, left = [*planned, *block], left - seconds
    return planned, dropped


def measure_spent(paths: Iterable[Path]) -> float:
    """The seconds that the runs which have ended took."""
    spent = 0.0
    for path in paths:
        end = find_end(path)
        if end is not None:
            training = end.train_seconds
            spent += end.step * end.seconds_per_step if training is None else training + (end.eval_seconds or 0)
    return spent


def find_end(path: Path) -> EndRecord | None:
    """The last record of a run that has ended."""
    if not (path / "recipe.yaml").exists():
        return None
    records = Run.open(path).records()
    last = records[-1] if records else None
    return last if isinstance(last, EndRecord) else None


def format_seconds(seconds: float) -> str:
    """A time for people.

    >>> format_seconds(40.0), format_seconds(150.0), format_seconds(7200.0)
    ('40 s', '2.5 min', '2 h')
    """
    amount, unit = (
        (seconds / 3600, "h") if seconds >= 5400 else (seconds / 60, "min") if seconds > 90 else (seconds, "s")
    )
    return f"{amount:.2g} {unit}" if unit != "s" else f"{amount:.0f} s"
