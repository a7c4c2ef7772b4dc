"""train: begins a run, or goes on with one."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from ..build import build, find_free_folder
from ..build.checks import check_machine
from ..build.sources import START, forget_start, hash_sources
from ..config.recipe import Recipe
from ..data import EpochIndex, get_scoring_window
from ..distributed import is_first_process, is_lost_connection, share_from_first, world_size
from ..errors import find_user_line, one_line
from ..features.modes import set_mode
from ..method import Method
from ..runs.code import describe_changes
from ..runs.environment import describe_environment
from ..runs.files import remove_leftovers
from ..runs.folder import BEST, DamagedCheckpoint, Run
from ..runs.lock import FolderTaken
from ..runs.records import EndRecord
from ..runs.student import has_whole_student, read_card, replace_recipe
from ..tasks import find_task
from ..training.callbacks import Callback
from ..training.checkpoint import lock_run, refuse_edited_recipe
from ..training.device import choose_device
from ..training.experiment import Experiment
from ..training.loop import fit
from ..training.signals import Interrupted
from ..training.state import Result
from .arguments import tell_ignored, tell_other_run
from .console import console, tell
from .lengthen import add_schedule, lengthen_recipe, refuse_unfinished, take_restart
from .places import find_recipe_paths
from .progress import choose_progress
from .rates import build_rates_table

RESUMABLE = ("epochs", "max_steps", "machine")  # settings that may change when a run goes on


class Manner(NamedTuple):
    """How a run is shown, and what happens when it is stopped."""

    title: str | None = None
    go_on: str | None = None  # says how to go on with the run
    callbacks: Sequence[Callback] = ()  # of a Python program, after those that show the run
    exits: bool = True  # whether a signal ends the program; False raises `Interrupted`


AS_COMMAND = Manner()


class Trained(NamedTuple):
    """A run that was trained."""

    path: Path
    result: Result | None  # None where it had ended before


def start_run(
    recipe: Recipe, *, trust: bool = False, around: Method | None = None, manner: Manner = AS_COMMAND
) -> Trained:
    """Builds a new run, says where it lies, and trains it; `around` a method that is there already."""
    experiment = build(recipe, trust=trust, around=around)
    check_trainable(experiment)
    return train_new_run(experiment, may_rename=recipe.out is None, manner=manner)


def describe_run(recipe: Recipe, *, trust: bool = False) -> None:
    """Builds and checks a new run, and says what was chosen and at which rates it would learn; writes nothing."""
    experiment = build(recipe, trust=trust)
    check_trainable(experiment)
    for note in experiment.notes:
        tell(f"note: {note}")
    console().print(build_rates_table(experiment))


def resume_run(
    path: Path,
    words: Sequence[str] = (),
    *,
    trust: bool = False,
    around: Method | None = None,
    manner: Manner = AS_COMMAND,
) -> Trained:
    """Goes on with the run in `path` from its last checkpoint; only its length and machine settings may change.

    A finished run whose student is whole is left alone, and has no result.
    """
    run = Run.open(path)
    if path.name == BEST and (path.parent / "recipe.yaml").exists():
        raise ValueError(f"{path} holds the best student of a run; go on with the run: --resume {path.parent}")
    if not words and has_whole_student(run) and tell_if_finished(run):
        tell_other_run(path, read_card(path, trust=True))
        return Trained(path, None)
    words = list(words)
    restart = take_restart(words)
    for word in words:
        if word.partition("=")[0].partition(".")[0] not in RESUMABLE:
            raise ValueError(f"{word} cannot change when a run goes on; what can: {', '.join(RESUMABLE)}")
    recipe, stored = run.recipe([*words, f"out={run.path}"], trust=trust), run.recipe(trust=True)
    refuse_edited_recipe(run)
    if not run.has_checkpoint and run.is_recipe_edited():
        raise ValueError(
            f"{run.path / 'recipe.yaml'} was cut or changed after the run began, and no checkpoint tells what stood "
            "there; put it back, or start a new run"
        )
    is_trained = stored.student.pretrained or stored.student.start is not None
    if is_trained and forget_start(stored).student == recipe.student and not run.has_checkpoint:
        raise ValueError(
            f"{run.path} has no checkpoint, and this machine did not sign it: the weights that it starts from would be "
            "fetched anew, so say --trust"
        )
    if not trust and not run.is_own:
        tell_ignored(run.path, stored, run.recipe())
    changed = {word.partition("=")[0] for word in words}
    lengthens = "epochs" in changed or (recipe.epochs is None and "max_steps" in changed)
    if lengthens:
        refuse_unfinished(run)
    elif restart is not None:
        raise ValueError(f"restart={restart:g} is of an added schedule; say how long: --resume {path} epochs=N")
    if recipe.precision == "auto" and choose_device(recipe) == "cpu":  # it began when that was fp32 on every CPU
        recipe = recipe.model_copy(update={"precision": "fp32"})
    refuse_changed_sources(run, recipe, trust=trust)
    experiment = build(find_recipe_paths(recipe, run), trust=trust, goes_on=run.has_checkpoint, around=around)
    if not lengthens:
        return Trained(run.path, train_on(experiment, run, manner=manner))
    experiment = add_schedule(experiment, run, stored, restart or 1.0)
    new_recipe = lengthen_recipe(stored, experiment.recipe)
    return Trained(run.path, train_on(experiment, run, manner=manner, new_recipe=new_recipe))


def refuse_changed_sources(run: Run, recipe: Recipe, *, trust: bool) -> None:
    """Raises `ValueError` where the user's own code or the teacher is not what the run began with.

    It would be another run. The weights that it started from are not needed any more.
    """
    environment = run.environment()
    if environment is None or environment.sources is None:
        return
    now = hash_sources(forget_start(recipe), trust=trust)
    before = {name: value for name, value in environment.sources.items() if name != START}
    if changed := describe_changes(before, now):
        raise ValueError(
            f"what {run.path} is made of changed since it began, in {changed}; undo that, or start another run with: "
            f"selfdistill train {run.path / 'recipe.yaml'} out=FOLDER"
        )


def tell_if_finished(run: Run) -> bool:
    """Whether the run has ended; if so, prints its scores."""
    records = run.records()
    if not records or not isinstance(records[-1], EndRecord):
        return False
    with suppress(DamagedCheckpoint):  # which nothing needs any more
        refuse_edited_recipe(run)
    tell(f"{run.path} is finished: {records[-1].sentence()}")
    if run.is_recipe_edited():
        tell(f"note: {run.path / 'recipe.yaml'} was changed after this run began")
    return True


def check_trainable(experiment: Experiment) -> None:
    """What can be found out without training: the machine, the optimizer, a user's own augmentations, evaluation."""
    check_machine(experiment)
    experiment.train_set[EpochIndex(0, 0)]
    check_scorable(experiment)


def check_scorable(experiment: Experiment) -> None:
    """The student scores held-out images at the size at which they are shown."""
    student, name = experiment.method.student, experiment.recipe.student.name
    if experiment.held_out is None or not experiment.method.task.positions:
        return  # every image is shown at the student's own size
    batch = next(iter(experiment.held_out(workers=0)))
    window_size = get_scoring_window(experiment.recipe.data)
    height, width = batch.images.shape[2:]
    score = find_task(experiment.recipe.task.kind).scorer(window_size)
    try:
        with set_mode(student, training=False), torch.no_grad():
            score(student, batch.images, batch.target)
    except Exception as error:  # other people's code
        advice = "" if window_size else "; set data.window=true, which shows it windows of data.image_size"
        raise ValueError(f"{name} cannot score images of {height}x{width} ({one_line(error)}){advice}") from error


def train_new_run(experiment: Experiment, *, may_rename: bool = False, manner: Manner = AS_COMMAND) -> Trained:
    """Trains into a new run folder; takes another if it `may_rename` and a process that started with it was faster."""
    recipe = experiment.recipe
    with ExitStack() as stack:
        run = None
        if is_first_process():
            run = stack.enter_context(begin_run(recipe, may_rename=may_rename))
            write_environment(experiment, run)
            tell(f"run folder: {run.path}")
            for note in experiment.notes:
                tell(f"note: {note}")
            recipe = recipe.model_copy(update={"out": str(run.path)})
        recipe = recipe.model_copy(update={"out": share_from_first(recipe.out or "")})
        run = run or Run(recipe.out or "")
        result = train(replace(experiment, recipe=recipe), run, resume=False, manner=manner)
        return Trained(run.path, result)


@contextmanager
def begin_run(recipe: Recipe, *, may_rename: bool) -> Iterator[Run]:
    """A new run folder, which no other process writes until the block ends."""
    with ExitStack() as stack:
        while True:
            try:
                run = stack.enter_context(Run.begin(recipe.out or "", recipe))
                break
            except FolderTaken:
                if not may_rename:
                    raise
                recipe = recipe.model_copy(update={"out": find_free_folder(recipe)})
        yield run


def train_on(
    experiment: Experiment, run: Run, *, manner: Manner = AS_COMMAND, new_recipe: Recipe | None = None
) -> Result:
    """Goes on with a run from its last checkpoint, or from its beginning where it has none.

    `new_recipe` replaces the run's, which every process has read by then.
    """
    check_machine(experiment)  # several processes meet in it, so that all learn of it where the first one ends
    with lock_run(run):
        has_checkpoint = run.has_checkpoint
        if is_first_process():
            remove_leftovers(run.path)
            if new_recipe is not None:
                replace_recipe(run, new_recipe)
            write_environment(experiment, run)
            if not has_checkpoint:
                tell(f"{run.path} holds no checkpoint; it starts from the beginning")
                run.rewind(0)
        return train(experiment, run, resume=has_checkpoint, manner=manner)


def write_environment(experiment: Experiment, run: Run) -> None:
    environment = describe_environment(
        data=dict(experiment.fingerprint),
        processes=world_size(),
        precision=experiment.recipe.precision,
        sources=dict(experiment.sources),
        recipe=run.hash_recipe(),
    )
    run.write_environment(environment)


def train(experiment: Experiment, run: Run, *, resume: bool, manner: Manner) -> Result:
    """Trains and shows it; says how to go on where a signal or the machine ends it."""
    title = manner.title or f"{experiment.recipe.method.name} on {experiment.recipe.student.name}"
    callbacks = [*choose_progress(title), *manner.callbacks]
    folder = str(run.path)
    command = f"selfdistill train --resume {shlex.quote(folder)}" if manner.exits else f"sd.train(resume={folder!r})"
    go_on = manner.go_on or f"go on with: {command}"
    try:
        return fit(experiment, run, resume=resume, callbacks=callbacks)
    except Interrupted as stop:
        if is_first_process():
            tell(f"{stop}; {go_on}")
        if not manner.exits:
            raise
        sys.exit(130)
    except Exception as error:
        outage = describe_outage(error)
        if outage is None:
            raise
        raise ValueError(f"{outage}; {go_on}") from error


def describe_outage(error: Exception) -> str | None:
    """What failed, if it is the machine, and neither the settings nor the code: such a run can go on."""
    if isinstance(error, OSError) and not find_user_line(error):
        return f"{error.filename or 'the disk'}: {error.strerror or error}"
    if "DataLoader worker" in str(error):
        return (
            f"a process that loads images ended ({one_line(error)}), perhaps for lack of memory: lower machine.workers"
        )
    if is_lost_connection(error):
        return "another process of this training ended or cannot be reached"
    return None
