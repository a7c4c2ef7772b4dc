"""Experiment: everything that `fit` takes, in one object."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ..config.recipe import Recipe
from ..data import TrainSet
from ..method import Method
from ..runs.student import StudentCard
from ..task import Batch

HeldOut = Callable[..., Iterable[Batch]]  # (*, rank, world, device) -> one process's share of the evaluation images


@dataclass(frozen=True)
class Experiment:
    """What is trained, on what, and how. `build` makes one from a recipe; the first three fields are enough for `fit`.

    Args:
        recipe: how to train; `fit` reads its optim, epochs, max_steps, batch_size, precision, seed and machine.
        method: what to train.
        train_set: the images to train on.
        held_out: gives the batches to score on after each epoch; None scores nothing.
        split: the name of the held-out images. Only "val" chooses the best checkpoint.
        test: gives the batches to score on once, after the last step; None where `held_out` is the test split.
        train_sample: gives training images as evaluation shows them, to score on after the last step.
        mix: maps each batch to one with mixed images and labels.
        card: describes the student; needed for a run folder, which rebuilds the network from it.
        fingerprint: a hash of each split's images and labels, for environment.json.
        sources: a hash of each module of the user's own and of the weights of other runs, for environment.json.
        notes: sentences for the user about what was chosen.
    """

    recipe: Recipe
    method: Method
    train_set: TrainSet
    held_out: HeldOut | None = None
    split: str = "val"
    test: HeldOut | None = None
    train_sample: HeldOut | None = None
    mix: Callable[[Batch], Batch] | None = None
    card: StudentCard | None = None
    fingerprint: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
