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


def note_origin(recipe: Recipe, origin: Origin | None, student: nn.Module) -> list[str]:
    """Sentences about a student that was given as an object: how a run's folder rebuilds it, and trained weights."""
    name = (recipe.student.name or "").partition(":")[2]
    if not is_object(recipe.student.name):
        return []
    if origin is not None:
        notes = [f"the student {name} is {origin.name}, by which the run folder rebuilds it"]
    else:
        notes = [f"the run folder cannot rebuild the student {name}: sd.load(RUN, student=...) takes one"]
    means = [value for key, value in student.named_buffers() if key.endswith("running_mean")]
    if not recipe.student.pretrained and any(bool(mean.any()) for mean in means):
        notes.append(
            f"the batch norms of {name} have seen images: if its weights are trained, student.pretrained=true takes "
            "the settings of fine-tuning"
        )
    return notes
