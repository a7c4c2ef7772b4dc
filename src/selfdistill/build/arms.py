"""Arms: a method with settings in one word, METHOD+NAME=VALUE+..., laid over a recipe."""

from ..config.part import list_settings
from ..config.read import change, did_you_mean_setting
from ..config.recipe import MethodPart, Recipe
from ..methods import find_method
from ..tasks import complete_recipe, find_task
from .checks import check_method


def build_arm_recipe(base: Recipe, arm: str) -> Recipe:
    """The recipe of one arm, "METHOD+NAME=VALUE+...", without the base's settings that its method does not have.

    Settings behind the + are the method's hyper-parameters, its teacher, or full names such as mix=cutmix. It takes
    the base's hyper-parameters if one of the two methods builds on the other.
    """
    name, *words = arm.split("+")
    method_class, base_class = find_method(name), find_method(base.method.name)
    known = method_class.hyperparameters()
    related = issubclass(method_class, base_class) or issubclass(base_class, method_class)
    shared = {key: value for key, value in base.method.hyperparameters.items() if related and key in known}
    teacher = base.method.teacher if method_class.needs_teacher else None
    network = base.method.teacher_network if teacher is not None else None
    method = {"name": name, "taps": base.method.taps, "teacher": teacher, "teacher_network": network, **shared}
    known = {**known, "teacher": None, "teacher_network": None}
    for word in words:
        setting = word.partition("=")[0]
        if setting not in known and setting not in (names := list_settings(Recipe)):
            raise ValueError(
                f"{arm}: {name} has no setting {setting!r}{did_you_mean_setting(setting, [*known, *names])}"
            )
    words = [f"method.{word}" if word.partition("=")[0] in known else word for word in words]
    return change(base.model_copy(update={"method": MethodPart(**method)}), words)


def is_possible(base: Recipe, arm: str) -> bool:
    """Whether the arm's method takes the task, the loss that is set for it and the labels that mixing makes."""
    try:
        recipe = complete_recipe(build_arm_recipe(base, arm))
        method, task = find_method(recipe.method.name), find_task(recipe.task.kind)
        check_method(recipe, task, method)
    except ValueError:
        return False
    is_plain = recipe.task.loss in (None, *task.losses[:1]) and not recipe.task.label_smoothing
    return is_plain or bool(method.supervised_terms)
