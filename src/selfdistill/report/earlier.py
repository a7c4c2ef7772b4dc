"""The runs that a comparison's table showed before, which a smaller comparison in the same folder keeps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..runs.files import read_json
from ..runs.folder import Run

Arms = dict[str, list[Path]]  # the run folders of each arm


class Identity(NamedTuple):
    """What decides whether a run may stand in a row beside others."""

    task: str
    seed: int
    sources: Mapping[str, str] | None


def add_earlier_runs(arms: Mapping[str, Sequence[Path]], folder: Path) -> Arms:
    """The runs of every arm, and those of the table in `folder`, whose order comes first where it has further arms.

    Left out are runs that are gone, damaged or of another task, and seeds of an arm that were made of something else.
    """
    earlier = read_earlier_runs(folder)
    task = next(_identify(path) for group in arms.values() for path in group).task
    whole: Arms = {}
    for arm in [*earlier, *arms] if earlier.keys() - arms.keys() else arms:
        own = [*arms.get(arm, [])]
        known = [_identify(path) for path in own]
        kept = [
            path
            for path, identity in earlier.get(arm, {}).items()
            if identity.task == task
            and identity.seed not in [other.seed for other in known]
            and all(identity.sources == other.sources for other in known)
        ]
        if own or kept:
            whole[arm] = own + kept
    return whole


def read_earlier_runs(folder: Path) -> dict[str, dict[Path, Identity]]:
    """The runs of each arm of compare.json that can still be read; none where the file is missing or damaged."""
    try:
        rows = {row["method"]: [folder / Path(run).name for run in row["runs"]] for row in _read_rows(folder)}
    except (ValueError, KeyError, TypeError):
        return {}
    return {arm: _identify_readable(paths) for arm, paths in rows.items()}


def _read_rows(folder: Path) -> list[dict[str, Any]]:
    path = folder / "compare.json"
    return read_json(path)["rows"] if path.is_file() else []


def _identify_readable(paths: Sequence[Path]) -> dict[Path, Identity]:
    identities = {}
    for path in paths:
        try:
            identities[path] = _identify(path)
        except ValueError:
            continue
    return identities


def _identify(path: Path) -> Identity:
    run = Run.open(path)
    recipe, environment = run.recipe(trust=True), run.environment()  # compared, not built
    return Identity(recipe.task.kind, recipe.seed, None if environment is None else environment.sources)
