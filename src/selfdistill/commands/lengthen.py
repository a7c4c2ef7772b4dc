"""train --resume RUN epochs=N: a finished run goes on with a new schedule of rates."""

import math
import shlex
from dataclasses import replace

from ..config.recipe import Recipe
from ..data import BatchSampler
from ..distributed import world_size
from ..errors import PLAIN_NUMBER
from ..runs.folder import Run
from ..runs.records import EndRecord
from ..training.experiment import Experiment
from ..training.optim import count_steps
from .arguments import take_setting

RESTART = "restart"  # a word beside epochs=N, not a setting of recipes


def take_restart(words: list[str]) -> float | None:
    """Removes `restart=SHARE` from words: the share of the rates from which an added schedule begins."""
    text = take_setting(words, RESTART, "")
    if not text:
        return None
    share = float(text) if PLAIN_NUMBER.fullmatch(text) else math.nan
    if not 0 < share < math.inf:
        raise ValueError(f"restart={text} is not a share of the rates, such as 0.5")
    return share


def refuse_unfinished(run: Run) -> None:
    """Raises `ValueError` for a run to which no schedule can be added, as it has not ended or has no checkpoint."""
    records = run.records()
    if not records or not isinstance(records[-1], EndRecord):
        raise ValueError(
            f"{run.path} has not ended, and its schedule of rates is laid out up to its end; first go on with it as it "
            f"is: selfdistill train --resume {shlex.quote(str(run.path))}"
        )
    if not run.has_checkpoint:
        raise ValueError(f"{run.path} has no checkpoint (last.pt) to go on from; start a new run")


def add_schedule(experiment: Experiment, run: Run, stored: Recipe, restart: float) -> Experiment:
    """A finished run's experiment with a further schedule up to its new length, from a share `restart` of the rates.

    Raises `ValueError` where the new length is not longer.
    """
    recipe = experiment.recipe
    plan = BatchSampler(
        len(experiment.train_set),
        recipe.batch_size or 1,
        seed=recipe.seed,
        drop_last=recipe.data.drop_last,
        world=world_size(),
    )
    step = run.load_whole_checkpoint()[0]["step"]
    if count_steps(recipe, plan.steps_per_epoch)[1] <= step:
        length = f"max_steps={recipe.max_steps}" if recipe.max_steps is not None else f"epochs={recipe.epochs}"
        done = f"{step:,} steps, {step / plan.steps_per_epoch:g} epochs"
        raise ValueError(f"{length} leaves nothing to train: {run.path} has {done}; give more")
    added = (step, count_steps(stored, plan.steps_per_epoch)[0], restart)
    optim = recipe.optim.model_copy(update={"restarts": [*stored.optim.restarts, added]})
    return replace(experiment, recipe=recipe.model_copy(update={"optim": optim}))


def lengthen_recipe(stored: Recipe, recipe: Recipe) -> Recipe:
    """What a run's recipe.yaml says of it from here on, so that it goes on with `--resume` alone if it is killed."""
    length = {"epochs": recipe.epochs, "max_steps": recipe.max_steps}
    return stored.model_copy(
        update={**length, "optim": stored.optim.model_copy(update={"restarts": recipe.optim.restarts})}
    )
