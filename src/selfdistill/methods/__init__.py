"""One file, one method, one paper; the folder is the registry: a file of this folder is a name for `create_method`."""

import importlib
import pkgutil
import warnings
from collections.abc import Sequence
from typing import Any, TypeGuard

from torch import nn

from ..errors import did_you_mean
from ..features.scores import ScoresAlone, returns_more
from ..hyperparameters import SHORT_RUN
from ..imports import load, suggest_colon
from ..method import Method
from ..task import Task


def list_methods() -> list[str]:
    """The names that `create_method` takes, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find_method(name: str | type[Method]) -> type[Method]:
    """The class behind a file of this folder or behind "package.module:Class"; a class itself is given back.

    Raises `ValueError` for anything else, with the nearest name.
    """
    if _is_method(name):
        return name
    if not isinstance(name, str):
        raise ValueError(f"a method is a name, as list_methods() gives, or a subclass of sd.Method, not {name!r}")
    if name == "auto":
        raise ValueError(
            "auto is no method: `selfdistill train`, `compare`, sd.train and sd.compare choose one in its place; name "
            "one here"
        )
    if ":" in name:
        return _load_method(name)
    if name not in list_methods():
        hint = suggest_colon(name) or did_you_mean(
            name.replace("-", "_"), list_methods(), otherwise="`selfdistill methods` lists them", cutoff=0.6
        )
        raise ValueError(f"no method is called {name!r}{hint}")
    module = importlib.import_module(f"{__name__}.{name}")
    defined = [value for value in vars(module).values() if _is_method(value) and value.__module__ == module.__name__]
    assert len(defined) == 1, f"methods/{name}.py must define one Method, not {len(defined)}"
    return defined[0]


def create_method(
    name: str | type[Method],
    student: nn.Module,
    task: Task,
    *,
    taps: Sequence[str] | None = None,
    teacher: nn.Module | None = None,
    total_steps: int | None = None,
    **hyperparameters: Any,
) -> Method:
    """Wrap a network in a training method.

    Args:
        name: A file of this folder, see `list_methods`, "package.module:Class", or a subclass of `selfdistill.Method`.
        student: The network to train. It stays as it is, and is what ships. Of one that returns its scores inside of
            something else, as `.logits`, or under "logits" or "out", the student is a module around it, `.network`.
        task: What the student learns.
        taps: Names of the submodules whose outputs are the feature maps; None finds them.
        teacher: The network that some methods learn from.
        total_steps: How many optimizer steps training takes. Some defaults differ on short schedules, such as `ramp`
            and `levels` of FRSKD below 20,000 steps; the command line follows the same rule. None takes the papers'
            defaults, and warns where a method has others. Only the command line knows whether the student's weights
            were trained; around a classifier that starts from such weights it gives FRSKD `levels=2` in the shortest
            schedules too.
        **hyperparameters: Values other than the method's defaults. `selfdistill methods NAME`, or in Python
            `print(selfdistill.describe_method(name))`, lists them with what they do.

    Returns:
        The method, an `nn.Module` whose forward pass returns named loss terms.

    Raises:
        ValueError: for unknown names and illegal values, with the nearest legal one, and for a student that is no
            network or is compiled.

    >>> import selfdistill as sd
    >>> student = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    >>> task = sd.Task("classification", num_classes=5, image_shape=(3, 2, 2))
    >>> method = create_method("label_smoothing", student, task, epsilon=0.2)
    >>> method.epsilon
    0.2
    """
    method = find_method(name)
    if isinstance(task, Task):  # otherwise the method says so
        given = student
        student, teacher = (_take_scores(network, task) for network in (student, teacher))
        if taps is not None and student is not given:
            taps = [f"network.{tap}" for tap in taps]
        hyperparameters = choose_hyperparameters(method, student, task, total_steps, hyperparameters)
    return method(student, task, taps=taps, teacher=teacher, **hyperparameters)


def _take_scores(network: Any, task: Task) -> Any:
    """The network, or a module around it that returns its scores alone; anything that is no network as it is."""
    is_network = isinstance(network, nn.Module)
    return ScoresAlone(network) if is_network and returns_more(network, task.image_shape) else network


def choose_hyperparameters(
    method: type[Method], student: nn.Module, task: Task, total_steps: int | None, given: dict[str, Any]
) -> dict[str, Any]:
    """The `given` settings and those that depend on the length of training; warns where that is not known."""
    if total_steps is not None:
        return {**method.short_run_defaults(task.output, given, total_steps, student=student), **given}
    if short := method.short_run_defaults(task.output, given, total_steps=1, student=student):
        defaults = method.defaults(task.output)
        warnings.warn(
            f"{method.__name__} takes {_list_settings({name: defaults[name] for name in short})}, which is made for "
            f"{SHORT_RUN:,} steps and more, and would take {_list_settings(short)} for fewer; give "
            f"create_method(..., total_steps=n), or these settings",
            stacklevel=3,
        )
    return given


def _list_settings(settings: dict[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in settings.items())


def _load_method(name: str) -> type[Method]:
    value = load(name)
    if not _is_method(value):
        raise ValueError(f"{name!r} is not a subclass of selfdistill.Method")
    return value


def _is_method(value: Any) -> TypeGuard[type[Method]]:
    return isinstance(value, type) and issubclass(value, Method) and value is not Method
