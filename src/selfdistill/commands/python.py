"""What the functions of `api.py` do."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..build import build
from ..config.overrides import write_word
from ..config.part import flatten
from ..data.random.seeds import isolate_generators
from ..imports import lend
from ..method import Method
from ..report.comparison import Comparison
from ..runs.folder import Run
from ..training.callbacks import Callback
from ..training.experiment import Experiment
from ..training.loop import fit
from ..training.state import Result
from .compare import parse_words, prepare_study
from .console import keep_quiet, tell
from .objects import Settings, find_name, is_pair, take_settings
from .progress import choose_progress
from .recipes import read_recipe
from .train import Manner, check_trainable, resume_run, start_run
from .trained import TrainedRun

OF_WEIGHTS = ("student.pretrained", "student.freeze", "student.unfreeze_at")  # that a network which is there has too


def train_run(
    recipe: str | Path | None,
    given: Mapping[str, Any],
    *,
    resume: Any,
    callbacks: Sequence[Callback],
    progress: bool,
    trust: bool,
) -> TrainedRun:
    """See `api.train`."""
    given = drop_open(given)
    manner = Manner(callbacks=callbacks, exits=False)
    if resume is not None:
        if recipe is not None:
            raise ValueError(f"recipe={recipe} has no effect on a run that goes on, which has its own")
        path = Path(getattr(resume, "path", resume))
        words, objects = take_resumed(given, Run.open(path), trust=trust)
        with lend(objects), keep_quiet(not progress):
            trained = resume_run(path, words, trust=trust, manner=manner)
    else:
        values, objects = take_settings(given)
        with lend(objects), keep_quiet(not progress):
            trained = start_run(read_recipe(recipe, [], values), trust=trust, manner=manner)
    return TrainedRun(trained.path, result=trained.result, objects=objects, trust=trust)


def drop_open(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a call without what is None, and so left to its default."""
    return {name: value for name, value in settings.items() if value is not None}


def take_resumed(given: Mapping[str, Any], run: Run, *, trust: bool) -> tuple[list[str], dict[str, Any]]:
    """The words of the settings that change for a run that goes on, and the objects that its recipe names."""
    known = run.recipe(trust=True).flatten()
    values, objects = take_settings(given, known=known)
    changed = {name: value for name, value in flatten(values).items() if not _is_same(name, value, known)}
    return [write_word(name, value) for name, value in changed.items()], objects


def _is_same(name: str, value: Any, known: Mapping[str, Any]) -> bool:
    main = {"data": "data.source", "student": "student.name", "method": "method.name", "task": "task.kind"}
    return known.get(main.get(name, name)) == value


def compare_arms(
    recipe: str | Path | None,
    request: Mapping[str, Any],
    settings: Mapping[str, Any],
    *,
    callbacks: Sequence[Callback],
    progress: bool,
    trust: bool,
) -> Comparison:
    """See `api.compare`."""
    values, objects = take_settings(drop_open(settings), copies=True)
    words = [] if recipe is None else [str(recipe)]
    for name, value in drop_open(request).items():
        items = [value] if isinstance(value, str | int | float) else [*value]
        texts = [write_arm(item, objects) for item in items]
        if texts:
            brackets = name == "seeds" and not isinstance(value, int | str)
            words.append(f"{name}=[{','.join(texts)}]" if brackets else f"{name}={','.join(texts)}")
    with lend(objects), keep_quiet(not progress):
        study = prepare_study(parse_words(words, values), trust=trust, manner=Manner(callbacks=callbacks, exits=False))
        comparison = study.write(study.train(), prints=False)
        if comparison is None:
            raise ValueError(f"no run of {study.folder} has begun here: other processes train them")
        return comparison._replace(folder=str(study.folder))


def write_arm(item: Any, objects: dict[str, Any]) -> str:
    """An item of a comparison's request as a word has it; a class of the program's own is lent."""
    if not isinstance(item, type):
        return str(item)
    name = find_name(item) or f"object:{item.__name__}"
    if name.startswith("object:"):
        objects[name] = item
    return name


def fit_method(
    method: Any,
    data: Any,
    settings: Mapping[str, Any],
    *,
    run: Any,
    resume: bool,
    callbacks: Sequence[Callback],
    progress: bool,
    trust: bool,
) -> Result:
    """See `api.fit`."""
    if isinstance(method, Experiment):
        if data is not None or settings:
            name = "data" if data is not None else next(iter(settings))
            raise ValueError(f"{name} has no effect beside an Experiment, which holds its own data and settings")
        folder = run if run is None or isinstance(run, Run) else Run.open(run)
        title = f"{method.recipe.method.name} on {type(method.method.student).__name__}"
        with keep_quiet(not progress):
            shown = [*(choose_progress(title) if progress else []), *callbacks]
            return fit(method, folder, resume=resume, callbacks=shown)
    if not isinstance(method, Method):
        raise ValueError(
            f"fit takes a method, from create_method or wrap, not a {type(method).__name__}; train takes names"
        )
    if data is None:
        raise ValueError("fit needs data: a torch Dataset of (image, label), a pair (train, val), or a source")
    values, objects = describe_method(method, data, settings)
    manner = Manner(callbacks=callbacks, exits=False)
    with lend(objects), keep_quiet(not progress):
        if resume:
            return _resume_fit(method, run, trust=trust, manner=manner)
        if run is not None:
            values["out"] = str(getattr(run, "path", run))
            return start_run(read_recipe(None, [], values), trust=trust, around=method, manner=manner).result
        experiment = build(read_recipe(None, [], values), trust=trust, around=method)
        check_trainable(experiment)
        for note in experiment.notes:
            tell(f"note: {note}")
        title = f"{experiment.recipe.method.name} on {type(method.student).__name__}"
        return fit(experiment, callbacks=[*choose_progress(title), *callbacks])


def _resume_fit(method: Method, run: Any, *, trust: bool, manner: Manner) -> Result:
    if run is None:
        raise ValueError("resume=True goes on from the checkpoint of a run folder; give it as run=")
    trained = resume_run(Path(getattr(run, "path", run)), trust=trust, around=method, manner=manner)
    if trained.result is None:
        raise ValueError(f"{trained.path} has ended; sd.load({str(trained.path)!r}) has its student")
    return trained.result


def describe_method(method: Method, data: Any, settings: Mapping[str, Any]) -> Settings:
    """The settings of a recipe around a method, and the objects that these name."""
    for name in settings:
        if name.partition(".")[0] in ("task", "student", "method", "out") and name not in OF_WEIGHTS:
            hint = "give run=" if name == "out" else "the method is made, with its network and its task"
            raise ValueError(f"{name} has no effect in fit; {hint}")
    task, loss = method.task, method.task.criterion
    channels, *size = task.image_shape
    given: dict[str, Any] = {
        "task": {"kind": task.kind, **({} if task.has_plain_loss or not callable(loss) else {"loss": loss})},
        "student": method.student,
        "method": type(method),
        "data": data,
        **settings,
    }
    if not gives_finished(data):
        given |= {"data.channels": channels, "data.image_size": size}
    return take_settings(drop_open(given), classes=task.num_classes)


def gives_finished(data: Any) -> bool:
    """Whether a data set gives float tensors."""
    first = data[0] if is_pair(data) and data else data
    if isinstance(first, str | Path) or not hasattr(first, "__getitem__"):
        return False
    try:
        with isolate_generators():
            image = first[0][0]
    except Exception:  # of somebody else's code, which reading it will tell
        return False
    return bool(getattr(image, "is_floating_point", lambda: False)())
