"""What a run is made of beside its recipe and its images, as hashes: the user's own code, and other runs' weights."""

from ..config.recipe import Recipe
from ..runs.code import hash_code
from ..runs.state_dicts import find_weights_file
from ..runs.student import read_card
from ..runs.trust import hash_bytes, is_code, is_network, list_code

START = "student.start"


def hash_sources(recipe: Recipe, *, trust: bool = False) -> dict[str, str]:
    """The hash of each module of the user's own by its name, and of the weights of a teacher and of `student.start`.

    Cards of older versions do not tell the latter. Raises `ValueError` for a folder that `read_card` refuses.
    """
    names, weights = [name for _, name in list_code(recipe) if is_code(name)], {}
    for setting, folder in (("method.teacher", recipe.method.teacher), (START, recipe.student.start)):
        if folder is not None and (file := find_weights_file(folder)) is not None:
            weights[setting] = hash_bytes(file.read_bytes())
        elif folder is not None and not (setting != START and is_network(folder)):
            card = read_card(folder, trust=trust)
            weights[setting] = card.weights_sha256
            if setting != START:  # whose code is not imported
                names += filter(is_code, (card.task, card.student.name))
    return {**hash_code(names), **{setting: value for setting, value in weights.items() if value is not None}}


def forget_start(recipe: Recipe) -> Recipe:
    """The recipe of a run whose student does not need the weights that it started from any more."""
    return recipe.model_copy(update={"student": recipe.student.model_copy(update={"start": None, "pretrained": False})})
