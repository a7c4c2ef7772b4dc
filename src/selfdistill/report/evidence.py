"""What the page reads of the runs: their logs, and what every held-out image was taken for."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from ..runs.folder import Run
from ..runs.records import AnyRecord, EndRecord
from ..runs.student import read_card
from ..tasks.base import TaskKind
from ..tasks.multilabel import find_shown
from .columns import Row
from .comparison import Comparison
from .finished import FREE_SETTINGS, FinishedRun, choose_split

BASELINE = 0  # the number of the baseline's color; other arms have 1, 2, ...
MOST_ARMS = 3  # that are shown class by class and image by image


class ArmRun(NamedTuple):
    """One run of an arm."""

    run: Run
    seed: int
    settings: dict[str, Any]  # of the recipe, under dotted names, without `FREE_SETTINGS`
    records: list[AnyRecord]
    end: EndRecord | None = None  # None where the run is not finished, and so are the next ones
    split: str | None = None  # of which the comparison speaks
    scores: Mapping[str, Any] = {}  # on this split, by name; empty where there are none
    outcomes: Any = None  # as they were written, without logits; None where none were
    said: Any = None  # bool (n, k): which classes reach their thresholds, of images that may show several
    nll_at_temperature: float | None = None


class Arm(NamedTuple):
    """The runs of one row of the comparison."""

    name: str
    number: int  # of its color
    runs: list[ArmRun]
    row: Row | None  # None where no run is finished

    @property
    def finished(self) -> list[ArmRun]:
        return [run for run in self.runs if run.end is not None]

    @property
    def outcomes(self) -> dict[int, Any]:
        """What the images were taken for, by seed."""
        return {run.seed: run.outcomes for run in self.runs if run.outcomes is not None}


class Evidence(NamedTuple):
    """Everything that the page shows, but for pictures."""

    comparison: Comparison
    arms: list[Arm]
    task: TaskKind | None  # None where the runs have several
    classes: tuple[str, ...]  # empty where no run names them, or they differ
    controls: Collection[str] = ()  # arms that nobody asked for

    @property
    def baseline(self) -> Arm | None:
        return next((arm for arm in self.arms if arm.number == BASELINE), None)

    @property
    def others(self) -> list[Arm]:
        return [arm for arm in self.arms if arm.number != BASELINE]

    @property
    def shown(self) -> list[Arm]:
        """The arms that are shown class by class and image by image: those that were asked for, before controls."""
        return sorted(self.others, key=lambda arm: arm.name in self.controls)[:MOST_ARMS]

    @property
    def runs(self) -> list[ArmRun]:
        return [run for arm in self.arms for run in arm.runs]


def gather_evidence(comparison: Comparison, controls: Collection[str] = (), *, trust: bool = False) -> Evidence:
    """Reads the runs of a comparison, and those that are not finished."""
    split = choose_split([run for runs in comparison.arms.values() for run in runs if run.splits])
    groups = {name: [_read_finished(run, split, trust=trust) for run in runs] for name, runs in comparison.arms.items()}
    for path in comparison.unfinished:
        run = _read_run(Run.open(path))
        groups.setdefault(_find_arm(run, groups), []).append(run)
    baseline = next((row["method"] for row in comparison.rows if row["is_baseline"]), None)
    names = [*([baseline] if baseline in groups else []), *(name for name in groups if name != baseline)]
    rows = {row["method"]: row for row in comparison.rows}
    first = 0 if baseline in groups else 1
    arms = [Arm(name, number, groups[name], rows.get(name)) for number, name in enumerate(names, start=first)]
    tasks = {run.settings["task.kind"] for arm in arms for run in arm.runs}
    classes = _list_classes(arms, trust=trust)
    if len(classes) > 1:  # what one run answered has no meaning beside another's
        arms = [arm._replace(runs=[run._replace(outcomes=None, said=None) for run in arm.runs]) for arm in arms]
    return Evidence(
        comparison,
        arms,
        comparison.tasks[0] if len(tasks) == 1 else None,
        classes[0] if len(classes) == 1 else (),
        controls,
    )


def _read_run(run: Run) -> ArmRun:
    recipe = run.recipe(trust=True)  # shown, not built
    return ArmRun(run, recipe.seed, recipe.flatten(exclude=set(FREE_SETTINGS)), run.records())


def _read_finished(finished: FinishedRun, split: str | None, *, trust: bool) -> ArmRun:
    outcomes, said = finished.read_outcomes(split), None
    if hasattr(outcomes, "shown"):
        with suppress(ValueError):
            said = find_shown(outcomes.logits, read_card(finished.run.path, trust=trust))
    if getattr(outcomes, "logits", None) is not None:
        outcomes = outcomes._replace(logits=None)  # the largest part, which nothing on the page needs
    scores = finished.get_scores(split)
    return _read_run(finished.run)._replace(
        end=finished.end,
        split=split or finished.end.split,
        scores={} if scores is None else scores._asdict(),
        outcomes=outcomes,
        said=said,
        nll_at_temperature=finished.get_nll_at_temperature(split),
    )


def _find_arm(run: ArmRun, groups: dict[str, list[ArmRun]]) -> str:
    """The arm of a run that is not finished: the one of its settings, else one called by its method."""
    return next(
        (name for name, others in groups.items() if others and others[0].settings == run.settings),
        str(run.settings["method.name"]),
    )


def _list_classes(arms: Sequence[Arm], *, trust: bool) -> list[tuple[str, ...]]:
    """The distinct classes that the runs name, without those whose student.json cannot be read."""
    found: dict[tuple[str, ...], None] = {}
    for run in (run for arm in arms for run in arm.runs):
        with suppress(ValueError):
            found[read_card(run.run.path, trust=trust).classes] = None
    return [*found]
