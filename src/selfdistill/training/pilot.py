"""What training steps cost, measured on a few of them before anything is trained."""

import itertools
import operator
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from ..data import train_loader
from ..distributed import share_from_first
from ..task import Batch
from .cost import read_clock
from .experiment import Experiment
from .loop import Trainer

WARM_UP = 2  # turns; the first one allocates memory, and a method that remembers a batch has none yet
LEAST_TURNS, MOST_TURNS = 7, 40
SECONDS = 10.0  # after which no further turn begins
STEPS_ON_GPU = 10  # of a turn; a GPU is waited for after each turn, which training does not do
LATE = 0.9  # share of a phase after which the steps lie: what rises over the run has risen


class Turns(NamedTuple):
    """Steps of two experiments that took turns, so that other work of the machine slowed both."""

    ratios: list[float]  # the second experiment's cost over the first one's, of each turn
    costs: tuple[float, float]  # of a step: the medians; processor seconds on a CPU, else device seconds
    seconds: tuple[float, float]  # by the clock on the wall: the shortest, as other work may lengthen it

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """Of the ratios; the second one is the slowdown."""
        low, median, high = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return low, median, high


class Cost(NamedTuple):
    cost: float
    seconds: float


def take_turns(plain: Experiment, other: Experiment) -> Turns:
    """Trains both in turns for some seconds, and lets go of what they learned."""
    walkers = [Walker(plain), Walker(other)]
    try:
        turns: list[tuple[Cost, Cost]] = []
        started = time.perf_counter()
        for number in range(WARM_UP + MOST_TURNS):
            steps = walkers[0].take_turn(), walkers[1].take_turn()
            turns += [steps] if number >= WARM_UP else []
            is_late = len(turns) >= LEAST_TURNS and time.perf_counter() - started > SECONDS
            if share_from_first(is_late):  # processes that train together end together
                break
    finally:
        for walker in walkers:
            walker.trainer.close()
    ratios = [other.cost / plain.cost for plain, other in turns]
    costs = [statistics.median(steps[side].cost for steps in turns) for side in range(2)]
    seconds = [min(steps[side].seconds for steps in turns) for side in range(2)]
    return Turns(ratios, (costs[0], costs[1]), (seconds[0], seconds[1]))


def time_scoring(experiment: Experiment) -> float:
    """Seconds by the clock on the wall that scoring the held-out images takes; 0 where nothing is held out."""
    trainer = Trainer(_prepare(experiment))
    try:
        started = time.perf_counter()
        trainer.scoring.score_held_out()
        return time.perf_counter() - started
    finally:
        trainer.close()


class Walker:
    """Takes training steps of an experiment as `fit` does, without an end and without writing anything."""

    def __init__(self, experiment: Experiment) -> None:
        self.trainer = Trainer(_prepare(experiment))
        self.phases = self.trainer.state.phases.values()
        self.steps = self._walk()

    def take_turn(self) -> Cost:
        """The cost and the seconds of a step: the mean over a run's phases, in each of which a turn takes steps."""
        costs = [self._take_steps(steps[int(LATE * len(steps))]) for steps in self.phases]
        shares = [len(steps) / sum(map(len, self.phases)) for steps in self.phases]
        cost, seconds = (sum(map(operator.mul, shares, values)) for values in zip(*costs, strict=True))
        return Cost(cost, seconds)

    def _take_steps(self, late: int) -> Cost:
        """The mean over some steps that are taken as if so many had been done."""
        device = self.trainer.device
        count = 1 if device.type == "cpu" else STEPS_ON_GPU
        started, clock = time.perf_counter(), read_clock(device)
        for batches, sizes in itertools.islice(self.steps, count):
            usual = self.trainer.state.step > 0  # the first batch follows none
            self.trainer.state.step = late
            self.trainer.train_step(batches, sizes, [usual] * len(sizes[self.trainer.rank]))
        cost = read_clock(device) - clock
        return Cost(cost / count, (time.perf_counter() - started) / count)

    def _walk(self) -> Iterator[tuple[Iterator[Batch], list[list[int]]]]:
        trainer = self.trainer
        for epoch in itertools.count():
            batches = iter(
                train_loader(
                    trainer.experiment.train_set,
                    trainer.plan.epoch(epoch),
                    device=trainer.device,
                    channels_last=trainer.recipe.machine.channels_last,
                )
            )
            for size in trainer.plan.batch_sizes:
                yield batches, trainer.plan.deal(size)


def _prepare(experiment: Experiment) -> Experiment:
    """The experiment without trackers and loading processes. What will be compiled is compiled in the warm-up."""
    machine = experiment.recipe.machine.model_copy(update={"track": [], "workers": 0})
    return replace(experiment, recipe=experiment.recipe.model_copy(update={"machine": machine}))
