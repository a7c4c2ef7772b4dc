"""Arms of a comparison: their recipes, and the run folder of each seed."""

from collections.abc import Sequence
from pathlib import Path

from ..build import build, make_file_name
from ..build.sources import hash_sources
from ..config.overrides import write_word
from ..config.part import list_settings
from ..config.read import change
from ..config.recipe import MethodPart, Recipe
from ..data import OpenedData
from ..distributed import is_first_process
from ..errors import did_you_mean
from ..methods import find_method
from ..runs.code import describe_changes
from ..runs.folder import Run
from ..training.experiment import Experiment
from .console import tell
from .train import check_trainable, tell_if_finished


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
    network = base.method.teacher_network if teacher is not None else None
    method = {"name": name, "taps": base.method.taps, "teacher": teacher, "teacher_network": network, **shared}
    known = {**known, "teacher": None, "teacher_network": None}
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
    if experiment.held_out is None:
        raise ValueError(
            "a comparison needs images to score on; drop data.val_fraction=0, or set data.val or data.test_fraction"
        )
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
