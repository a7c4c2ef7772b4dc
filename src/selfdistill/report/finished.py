"""Run folders that went to their end, and what makes them less comparable than they look."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ..runs.environment import Environment
from ..runs.folder import Run
from ..runs.records import AnyRecord, EndRecord
from ..runs.trust import refuse_code
from ..tasks import find_task
from ..tasks.base import TaskKind

FREE_SETTINGS = ("seed", "out", "machine")  # in which the runs of one row may differ


class FinishedRun(NamedTuple):
    """What a comparison reads of a run."""

    run: Run
    settings: dict[str, Any]  # of the recipe, under dotted names, without `FREE_SETTINGS`
    seed: int
    end: EndRecord

    @property
    def task(self) -> TaskKind:
        return find_task(self.settings["task.kind"])

    @property
    def splits(self) -> set[str]:
        """The held-out images on which there are scores."""
        own = {self.end.split} if self.end.scores is not None else set()
        return own | ({"test"} if self.end.test_scores is not None else set())

    def get_scores(self, split: str | None) -> Any:
        """The scores on a split, by default that of the run's epochs; None where there are none."""
        if split in (None, self.end.split):
            return self.end.scores
        return self.end.test_scores if split == "test" else None

    def get_nll_at_temperature(self, split: str | None) -> float | None:
        """The NLL on a split at the temperature that was fitted on the held-out images."""
        of_epochs = split in (None, self.end.split)
        return self.end.nll_at_temperature if of_epochs else self.end.test_nll_at_temperature

    def read_outcomes(self, split: str | None) -> Any:
        """`ClassOutcomes` or `PixelOutcomes` of a split; None where there are none, or the file is damaged."""
        try:
            return self.run.outcomes(split or self.end.split)
        except ValueError:
            return None

    def records(self) -> list[AnyRecord]:
        return self.run.records()


def choose_split(runs: Iterable[FinishedRun]) -> str | None:
    """The images that a comparison speaks of: "test" where all runs have such scores; None: each run's own."""
    return "test" if all("test" in run.splits for run in runs if run.splits) else None


def read_finished(run: Run, *, trust: bool = False) -> FinishedRun | None:
    """The run, if it is finished; None if it has not ended, or was continued and has not ended again.

    Raises `ValueError` where a folder from somebody else names a task outside the package, unless `trust`.
    """
    find_task_of(run, trust=trust)
    records = run.records()
    last_step = max((record.step for record in records), default=0)
    ends = [record for record in records if isinstance(record, EndRecord) and record.step == last_step]
    if not ends:
        return None
    recipe = run.recipe(trust=True)  # compared, not built
    return FinishedRun(run, recipe.flatten(exclude=set(FREE_SETTINGS)), recipe.seed, ends[-1])


def find_task_of(run: Run, *, trust: bool = False) -> TaskKind:
    """The task of a run; errors as `read_finished`."""
    kind = run.recipe(trust=True).task.kind
    if not trust and not run.is_own:
        refuse_code(run.path, [("task", kind)])
    return find_task(kind)


def group_by_settings(runs: Iterable[FinishedRun]) -> dict[str, list[FinishedRun]]:
    """Runs of equal settings together, in order of appearance, under "METHOD+NAME=VALUE+..." names."""
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(json.dumps(run.settings, sort_keys=True), []).append(run)
    settings_of_groups = [group[0].settings for group in groups.values()]
    named = {}
    for settings, group in zip(settings_of_groups, groups.values(), strict=True):
        method = settings["method.name"]
        differing = find_differing([other for other in settings_of_groups if other["method.name"] == method])
        words = [f"{name.removeprefix('method.')}={settings.get(name)}" for name in differing]
        named["+".join([method, *words])] = group
    return named


def find_differing(several: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names whose values are not the same in all of them."""
    names = dict.fromkeys(name for values in several for name in values)
    return [name for name in names if any(values.get(name) != several[0].get(name) for values in several)]


def describe_source_changes(environments: Sequence[Environment]) -> list[str]:
    """A sentence where runs were made with different versions of one module or one teacher."""
    first: dict[str, str] = {}
    changed = set()
    for environment in environments:
        for name, value in (environment.sources or {}).items():
            if first.setdefault(name, value) != value:
                changed.add(name)
    return [f"What they are made of changed between the runs: {', '.join(sorted(changed))}."] if changed else []


def describe_differences(groups: Mapping[str, Sequence[FinishedRun]]) -> list[str]:
    """Sentences on what makes the rows less comparable than they look."""
    notes = []
    for name, group in groups.items():
        if len({run.seed for run in group}) < len(group):
            notes.append(f"{name} has several runs of one seed, so its spread is too small.")
        if differing := find_differing([run.settings for run in group]):
            notes.append(f"The runs of {name} do not share one recipe; they differ in {', '.join(differing)}.")
    runs = [run for group in groups.values() for run in group]
    names = find_differing([run.settings for run in runs])
    spelled = {word.partition("=")[0] for name in groups for word in name.split("+")[1:]}  # by the rows' names
    names = [name for name in names if not spelled & {name, name.removesuffix(".name")}]
    if differing := [name for name in names if not name.startswith("method.")]:
        notes.append(f"The rows do not share one recipe; beside the method they differ in {', '.join(differing)}.")
    if choose_split(runs) is None and len({run.end.split for run in runs if run.splits}) > 1:
        notes.append("Not all scores were taken on the same split.")
    if edited := [str(run.run.path) for run in runs if run.run.is_recipe_edited()]:
        notes.append(f"recipe.yaml was changed after the run began: {', '.join(edited)}.")
    environments = [run.run.environment() or Environment() for run in runs]
    notes += describe_source_changes(environments)
    if find_differing([{"data": environment.data} for environment in environments]):
        notes.append("The images changed between the runs: their fingerprints differ.")
    if find_differing([{"cpu": environment.cpu, "gpus": environment.gpus} for environment in environments]):
        notes.append("The runs were made on different machines, so their times do not compare.")
    return notes
