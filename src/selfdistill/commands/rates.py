"""The table of `train --dry-run`: the layers of a method and the rates at which they learn."""

from typing import Any

from ..errors import count_of
from ..training.experiment import Experiment
from ..training.freezing import Freezing, find_frozen
from ..training.optim import count_steps
from ..training.rates import list_rates


def build_rates_table(experiment: Experiment) -> Any:
    """Each group of parameters that learn at one rate, from the student's last layer on, and what is frozen."""
    from rich.table import Column, Table

    recipe, method = experiment.recipe, experiment.method
    steps = count_steps(recipe, len(experiment.train_set) // (recipe.batch_size or 1))[0]
    table = Table(
        Column("from", overflow="fold"),
        Column("parameters", justify="right"),
        Column("learning rate", justify="right"),
        Column("weight decay", justify="right"),
        title=f"{recipe.method.name} on {recipe.student.name}: {count_of(steps, 'step')}, by {recipe.optim.name}",
    )
    frozen = [] if recipe.student.freeze is None else find_frozen(method.student, recipe.student.freeze)
    sizes = {name: parameter.numel() for name, parameter in method.student.named_parameters()}
    freezing = Freezing(method, recipe.student, steps)
    for rate in list_rates(method, recipe.optim):
        table.add_row(rate.first, f"{rate.count:,}", f"{rate.lr:.3g}", f"{rate.weight_decay:g}")
    freezing.close()
    if frozen:
        share = recipe.student.unfreeze_at
        when = "always" if share is None else f"until {share:.0%} of training"
        table.add_row(f"frozen {when}: {frozen[0]} and others", f"{sum(sizes[n] for n in frozen):,}", "0", "")
    return table
