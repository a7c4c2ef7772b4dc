"""Students that a Python program gives as objects: what they are called, so that a run folder rebuilds them."""

from torch import nn

from ..config.recipe import Recipe
from ..models import Origin, identify
from ..runs.trust import is_object
from ..task import Task


def identify_object(recipe: Recipe, student: nn.Module, task: Task) -> Origin | None:
    """What a student is called that was given as an object; None for others, and where that cannot be told."""
    if not is_object(recipe.student.name):
        return None
    return identify(student, num_classes=task.num_classes, image_shape=task.image_shape)


def note_origin(recipe: Recipe, origin: Origin | None) -> list[str]:
    """A sentence about how a run's folder rebuilds a student that was given as an object."""
    name = (recipe.student.name or "").partition(":")[2]
    if not is_object(recipe.student.name):
        return []
    if origin is not None:
        return [f"the student {name} is {origin.name}, by which the run folder rebuilds it"]
    return [f"the run folder cannot rebuild the student {name}: sd.load(RUN, student=...) takes one for its weights"]
