"""Arms of a comparison: the run folder of each seed, and what lies there."""

from collections.abc import Sequence
from pathlib import Path

from ..build import build, make_file_name
from ..build.sources import hash_sources
from ..config.overrides import write_word
from ..config.recipe import Recipe
from ..data import OpenedData
from ..distributed import is_first_process
from ..runs.code import describe_changes
from ..runs.folder import Run
from ..training.experiment import Experiment
from .console import tell
from .train import check_trainable, tell_if_finished


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
