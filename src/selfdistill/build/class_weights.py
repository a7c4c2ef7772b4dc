"""Class weights of a recipe as numbers, which the run's own recipe then holds."""

from typing import NamedTuple

from ..config.recipe import TaskPart
from ..data import LabeledDataset
from ..data.datasets.base import LabelCounts, quote_names
from ..tasks.base import TaskKind


class ChosenWeights(NamedTuple):
    """A weight for each class, or None, and sentences for the user."""

    weights: list[float] | None
    notes: list[str]


def choose_class_weights(part: TaskPart, images: LabeledDataset, task: TaskKind) -> ChosenWeights:
    """The weights that the training `images` give, or that the recipe names.

    Raises `ValueError` for a class that the data do not have, and for another number of weights than of classes.
    """
    given, classes = part.class_weights, images.classes
    if given is None:
        return ChosenWeights(None, [])
    if isinstance(given, dict):
        for name in given:
            if name not in classes:
                raise ValueError(f"task.class_weights names {name!r}, and the classes are {quote_names(classes)}")
        return ChosenWeights([given.get(name, 1.0) for name in classes], [])
    if not isinstance(given, str):
        return ChosenWeights(given, [])
    counts = images.count_labels()
    weights = task.weigh_classes(counts, len(images), given)
    return ChosenWeights(weights, _describe(given, weights, counts, images))


def _describe(rule: str, weights: list[float], counts: LabelCounts, images: LabeledDataset) -> list[str]:
    """Sentences about the smallest and the largest weight, and about classes without a label."""
    classes = images.classes
    present = counts.labels.nonzero().flatten().tolist()
    low, high = (choose(present, key=weights.__getitem__) for choose in (min, max))
    sample = f", counted in {counts.sampled} of the {len(images)} masks" if counts.sampled else ""
    notes = [
        f"task.class_weights={rule}: from {weights[low]:.3g} for {classes[low]!r} to {weights[high]:.3g} for "
        f"{classes[high]!r}{sample}; the run's recipe lists them all"
    ]
    if absent := [name for k, name in enumerate(classes) if k not in present]:
        notes.append(f"no training label is {quote_names(absent)}; the class weight there is 1")
    return notes
