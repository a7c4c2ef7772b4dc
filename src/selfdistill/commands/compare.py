"""compare: several methods with several seeds under one recipe, and one table of them."""

from collections.abc import Sequence
from pathlib import Path

from ..build import build, make_file_name
from ..build.sources import hash_sources
from ..config.overrides import write_word
from ..config.part import list_settings
from ..config.read import change
from ..config.recipe import MethodPart, Recipe
from ..data import OpenedData
from ..distributed import is_first_process, share_from_first
from ..errors import did_you_mean
from ..methods import find_method
from ..report.comparison import compare_runs
from ..report.earlier import add_earlier_runs
from ..runs.code import describe_changes
from ..runs.files import write_text
from ..runs.folder import Run
from ..training.experiment import Experiment
from .arguments import parse_seeds, take_setting
from .console import console, tell
from .recipes import read_words
from .train import check_trainable, tell_if_finished, train_new_run, train_on

GO_ON = "run the same line again to go on"


def compare_methods(words: Sequence[str], *, trust: bool = False) -> None:
    """Trains every arm with every seed, or takes the run that is there, and prints and writes the table.

    An arm is METHOD, or METHOD+NAME=VALUE+... All arms are checked before the first is trained. Each run is built once,
    and is let go of before the next one of its arm is built. Runs share the data set and its decoded images.
    """
    arms, seeds, base = parse_words([*words])
    parts = ("compare", Path(base.data.source).stem, base.student.name.partition(":")[2])
    folder = Path(base.out or f"runs/{make_file_name('-'.join(parts))}")
    if (folder / "recipe.yaml").exists():
        raise ValueError(f"{folder} is itself a run, and a comparison is a folder of runs; choose another `out=`")
    recipes = {arm: build_arm_recipe(base, arm) for arm in arms}
    paths = {arm: find_run_paths(folder, arm, seeds, recipes[arm], trust=trust) for arm in arms}
    opened = OpenedData()
    experiments = {arm: build_arm(recipes[arm], paths[arm][0], seeds[0], opened, trust=trust) for arm in arms}
    resolved = {arm: experiment.recipe for arm, experiment in experiments.items()}
    if is_first_process():
        for note in dict.fromkeys(note for experiment in experiments.values() for note in experiment.notes):
            tell(f"note: {note}")
    for number, seed in enumerate(seeds):
        for arm in arms:
            path = paths[arm][number]
            experiment = experiments.pop(arm, None)
            if not is_done(path, resolved[arm].model_copy(update={"seed": seed, "out": str(path)})):
                experiment = experiment or build_arm(recipes[arm], path, seed, opened, trust=trust)
                train_arm(experiment, f"{arm}, seed {seed}")
            del experiment
    if is_first_process():
        write_table(paths, folder)


def parse_words(words: list[str]) -> tuple[list[str], list[int], Recipe]:
    """The arms, the seeds, and the recipe that they share."""
    arms = take_setting(words, "methods", "baseline,frskd").split(",")
    seeds_text = take_setting(words, "seeds", "3")
    seeds = parse_seeds(seeds_text)
    if not seeds or len(set(seeds)) < len(seeds) or len(set(arms)) < len(arms):
        raise ValueError(f"methods={','.join(arms)} seeds={seeds_text} must name at least one of each, and none twice")
    for word in words:
        if word.partition("=")[0] in ("method", "method.name", "seed"):
            raise ValueError(f"{word} has no effect in a comparison; methods= and seeds= say what to compare")
    base = read_words(words)
    for setting in base.method.hyperparameters:
        if all(setting not in find_method(arm.split("+")[0]).hyperparameters() for arm in arms):
            raise ValueError(f"none of the methods {', '.join(arms)} has a hyper-parameter {setting!r}")
    return arms, seeds, base


def build_arm_recipe(base: Recipe, arm: str) -> Recipe:
    """The recipe of one arm, "METHOD+NAME=VALUE+...", without the base's settings that its method does not have.

    Settings behind the + are the method's hyper-parameters, its teacher, or full names such as mix=cutmix. It takes
    the base's hyper-parameters if one of the two methods builds on the other.
    """
    name, *words = arm.split("+")
    method_class, base_class = find_method(name), find_method(base.method.name)
    known = method_class.hyperparameters()
    related = issubclass(method_class, base_class) or issubclass(base_class, method_class)
    shared = {key: value for key, value in base.method.hyperparameters.items() if related and key in known}
    teacher = base.method.teacher if method_class.needs_teacher else None
    method = {"name": name, "taps": base.method.taps, "teacher": teacher, **shared}
    known = {**known, "teacher": None}
    for word in words:
        setting = word.partition("=")[0]
        if setting not in known and setting not in (names := list_settings(Recipe)):
            raise ValueError(f"{arm}: {name} has no setting {setting!r}{did_you_mean(setting, [*known, *names])}")
    words = [f"method.{word}" if word.partition("=")[0] in known else word for word in words]
    return change(base.model_copy(update={"method": MethodPart(**method)}), words)


def choose_run_path(folder: Path, arm: str, seed: int) -> Path:
    return folder / make_file_name(f"{arm}-s{seed}")


def find_run_paths(folder: Path, arm: str, seeds: Sequence[int], recipe: Recipe, *, trust: bool) -> list[Path]:
    """The run folder of each seed. A run of other code or another teacher has a number behind its name."""
    sources = hash_sources(recipe, trust=trust)
    return [find_run_path(choose_run_path(folder, arm, seed), sources) for seed in seeds]


def find_run_path(path: Path, sources: dict[str, str]) -> Path:
    """The first of PATH, PATH-2, ... that is free or holds a run of these sources; a note says why one is new."""
    chosen, number, note = path, 2, ""
    while changed := describe_changed_sources(chosen, sources):
        note = f"note: {changed} changed since {chosen.name} was trained"
        chosen, number = path.with_name(f"{path.name}-{number}"), number + 1
    if note and not chosen.exists() and is_first_process():
        tell(f"{note}, so {chosen} is another run")
    return chosen


def describe_changed_sources(path: Path, sources: dict[str, str]) -> str:
    """What is not as when the run in a folder began; empty where there is none, or it did not tell."""
    if not (path / "recipe.yaml").exists():
        return ""
    environment = Run.open(path).environment()
    return "" if environment is None or environment.sources is None else describe_changes(environment.sources, sources)


def build_arm(recipe: Recipe, path: Path, seed: int, opened: OpenedData, *, trust: bool = False) -> Experiment:
    """The checked experiment of one arm with one seed."""
    experiment = build(recipe.model_copy(update={"seed": seed, "out": str(path)}), opened, trust=trust)
    check_trainable(experiment)
    return experiment


def is_done(path: Path, recipe: Recipe) -> bool:
    """Whether the run is there and finished; raises `ValueError` where the folder holds a run of another recipe."""
    if not (path / "recipe.yaml").exists():
        return False
    run = Run.open(path)
    stored, wanted = run.recipe(trust=True).flatten(), recipe.flatten()  # compared, not built
    for name in wanted.keys() | stored.keys():
        if wanted.get(name) != stored.get(name) and not name.startswith(("machine.", "out")):
            raise ValueError(
                f"{path} holds a run of another recipe, whose {name} is {stored.get(name)} and not {wanted.get(name)}; "
                f"set {write_word(name, stored.get(name))} or choose another out="
            )
    return tell_if_finished(run)


def train_arm(experiment: Experiment, title: str) -> None:
    """Trains a run of a comparison, from its last checkpoint where it was interrupted."""
    path = Path(experiment.recipe.out or "")
    if share_from_first((path / "recipe.yaml").exists()):  # which the first process is about to write
        train_on(experiment, Run.open(path), title=title, go_on=GO_ON)
    else:
        train_new_run(experiment, title=title, go_on=GO_ON)


def write_table(paths: dict[str, list[Path]], folder: Path) -> None:
    """Prints the table of the runs, the first arm being the baseline, and writes it beside them.

    What is written keeps the arms and seeds of the table that was written before.
    """
    table = compare_runs(paths, baseline=next(iter(paths)), trust=True)  # their task is the one of the command line
    console().print(table.rich())
    whole = add_earlier_runs(paths, folder)
    if whole != paths:
        table = compare_runs(whole, baseline=next(iter(whole)), trust=True)
        count = sum(map(len, whole.values()))
        tell(f"note: {folder / 'compare.md'} keeps the runs of the comparison before and shows {count}")
    write_text(folder / "compare.md", table.markdown())
    write_text(folder / "compare.json", table.json())
    tell(f"written: {folder / 'compare.md'}, {folder / 'compare.json'}")
