"""compare: several methods with several seeds under one recipe, one table of them, and a verdict on each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..build import build, build_automatic, make_file_name
from ..build.arms import build_arm_recipe
from ..config.part import flatten
from ..config.recipe import AUTO, DataPart, MethodPart, Recipe
from ..data import OpenedData
from ..distributed import is_first_process, share_from_first
from ..methods import find_method
from ..report.plan import Plan, read_plan
from ..runs.folder import Run
from ..tasks import complete_recipe, find_task
from .arguments import parse_seeds, split_words, take_setting
from .console import tell
from .controls import list_control_arms, parse_controls
from .planning import parse_budget
from .recipes import read_recipe
from .study import Request, Study
from .train import AS_COMMAND, Manner

TEST_FRACTION = 0.2  # of each class, where the data have no test split


def compare_methods(words: Sequence[str], *, trust: bool = False) -> None:
    """Trains every arm with every seed, or takes the run that is there; prints and writes the table and the verdicts.

    An arm is METHOD, or METHOD+NAME=VALUE+... All arms are checked before the first is trained. Each run is built once,
    and is let go of before the next one of its arm is built. Runs share the data set and its decoded images. What
    another process trains at the moment is left to it.
    """
    study = prepare_study(parse_words([*words]), trust=trust)
    elsewhere = study.train()
    if is_first_process():
        study.write(elsewhere)


def prepare_study(request: Request, *, trust: bool = False, manner: Manner = AS_COMMAND) -> Study:
    """The comparison that was asked for, with its plan; all arms are checked, and nothing is trained."""
    base = complete_recipe(request.base)
    parts = ("compare", Path(base.data.source or "").stem, (base.student.name or "").partition(":")[2])
    folder = Path(base.out or f"runs/{make_file_name('-'.join(parts))}")
    if (folder / "recipe.yaml").exists():
        raise ValueError(f"{folder} is itself a run, and a comparison is a folder of runs; choose another `out=`")
    opened = OpenedData()
    request = settle_arms(request._replace(base=hold_out_test(request, folder, opened)), folder, opened, trust=trust)
    study = Study(request, folder, opened, trust=trust, manner=manner)
    study.make_plan()
    return study


def parse_words(words: list[str], values: Mapping[str, Any] | None = None) -> Request:
    """The request of a command line; nested plain `values` lie under its words."""
    arms = take_setting(words, "methods", "baseline,frskd").split(",")
    seeds_text = take_setting(words, "seeds", "3")
    seeds = parse_seeds(seeds_text)
    if not seeds or len(set(seeds)) < len(seeds) or len(set(arms)) < len(arms):
        hint = "; seeds=[0] names seed 0" if not seeds else ""
        names = f"methods={','.join(arms)} seeds={seeds_text}"
        raise ValueError(f"{names} must name at least one of each, and none twice{hint}")
    controls = parse_controls(take_setting(words, "controls", "none"))
    margin, budget = take_setting(words, "margin", ""), take_setting(words, "budget", "")
    for word in [*words, *(f"{name}={value}" for name, value in flatten(values or {}).items())]:
        if word.partition("=")[0] in ("method", "method.name", "seed"):
            raise ValueError(f"{word} has no effect in a comparison; methods= and seeds= say what to compare")
    carves = not any(word.startswith("data.test_fraction=") for word in words)
    words = ["data.test_fraction=null" if word in WITHOUT_TEST else word for word in words]
    name, words = split_words(words)
    base = read_recipe(name, words, values)
    if base.method.name == AUTO:  # it stands for an arm only where methods= names it
        base = base.model_copy(update={"method": MethodPart(name="baseline")})
    refuse_settings_of_auto(arms, base)
    for setting in base.method.hyperparameters:
        if all(setting not in find_method(arm.split("+")[0]).hyperparameters() for arm in arms):
            raise ValueError(f"none of the methods {', '.join(arms)} has a hyper-parameter {setting!r}")
    return Request(
        arms,
        seeds,
        controls,
        parse_margin(margin) if margin else None,
        parse_budget(budget) if budget else None,
        base,
        carves and base.data.test_fraction is None,
    )


def refuse_settings_of_auto(arms: Sequence[str], base: Recipe) -> None:
    """Raises `ValueError` for settings of the method where an arm is auto, which chooses these too."""
    for arm in arms:
        if arm.startswith(f"{AUTO}+"):
            raise ValueError(f"{arm}: auto chooses the settings too; write auto alone, or name a method")
    if AUTO in arms and (settings := base.method.hyperparameters):
        names = ", ".join(f"method.{name}" for name in settings)
        raise ValueError(
            f"the recipe sets {names}, and auto among methods= chooses the settings too; begin with a recipe that sets "
            "none, or name a method"
        )


def settle_arms(request: Request, folder: Path, opened: OpenedData, *, trust: bool = False) -> Request:
    """The request with the arm that auto stands for in its place; says which and why.

    A comparison that was begun keeps what it was begun with. Of arms that train the same, one stays. Raises
    `ValueError` where nothing is left to compare.
    """
    if AUTO not in request.arms:
        return request
    earlier = share_from_first(read_plan(folder)) or Plan()
    if earlier.auto is not None:
        chosen, notes = earlier.auto, [f"auto stays {earlier.auto}, with which this comparison was begun"]
    else:
        choice, _ = build_automatic(request.base, opened, trust=trust)
        chosen, notes = choice.arm, [choice.note]
    arms = [chosen if arm == AUTO else arm for arm in request.arms]
    others = [arm for arm in request.arms if arm not in (AUTO, chosen)]
    if (same := find_same(request.base, chosen, others, opened, trust=trust)) is not None:
        kept, dropped = (chosen, same) if earlier.auto is not None else (same, chosen)
        notes.append(f"{dropped} is the same as {kept} in these runs, which stands for both")
        arms, chosen = [kept if arm == dropped else arm for arm in arms], kept
    arms = list(dict.fromkeys(arms))
    if len(arms) == 1 < len(request.arms) and not list_control_arms(request.base, arms, request.controls):
        raise ValueError(
            f"nothing is left to compare with {chosen}, as {notes[0]}; name another method beside it, or controls=auto"
        )
    if is_first_process():
        for note in notes:
            tell(f"note: {note}")
    return request._replace(arms=arms, auto=chosen)


def find_same(base: Recipe, arm: str, others: Sequence[str], opened: OpenedData, *, trust: bool) -> str | None:
    """The one of the other arms that trains the same as an arm; None where there is none."""
    kin = [other for other in others if other.split("+")[0] == arm.split("+")[0]]
    if not kin:
        return None
    wanted, *resolved = (build(build_arm_recipe(base, name), opened, trust=trust).recipe for name in (arm, *kin))
    return next((name for name, recipe in zip(kin, resolved, strict=True) if recipe == wanted), None)


WITHOUT_TEST = [f"data.test_fraction={value}" for value in ("none", "0", "0.0", "")]


def parse_margin(text: str) -> float:
    """The smallest gain that is worth a method, in points."""
    try:
        margin = float(text)
    except ValueError:
        margin = -1.0
    if not 0 <= margin <= 100:
        raise ValueError(f"margin={text} is no number of points from 0 to 100; write margin=0.5")
    return margin


def hold_out_test(request: Request, folder: Path, opened: OpenedData) -> Recipe:
    """The recipe with a share of the images held out for a test at the end, where the data have no test split.

    A comparison whose runs were begun without one goes on without.
    """
    base = request.base
    if not request.carves:
        return base
    begun = [Run.open(path.parent).recipe(trust=True).data for path in sorted(folder.glob("*/recipe.yaml"))]
    if begun:
        return _set_test_fraction(base, begun[0])
    settings, task = complete_recipe(base).data, find_task(base.task.kind)
    splits = opened.open_splits(settings, task)
    if splits.test is not None:
        return base
    held = settings.model_copy(update={"test_fraction": TEST_FRACTION})
    try:
        opened.open_splits(held, task)
    except ValueError as error:
        if is_first_process():
            tell(f"note: no test images are held out ({error}); scores are those of the validation images")
        return base
    return _set_test_fraction(base, held)


def _set_test_fraction(base: Recipe, data: DataPart) -> Recipe:
    fraction = {"test_fraction": data.test_fraction}
    return base.model_copy(update={"data": base.data.model_copy(update=fraction)})
