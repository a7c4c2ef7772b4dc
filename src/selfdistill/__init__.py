"""Self-distillation for vision: train any PyTorch image network to be better without a bigger teacher.

>>> import selfdistill as sd                                                            # doctest: +SKIP
>>> task = sd.Task("classification", 10, (3, 32, 32))                                   # doctest: +SKIP
>>> method = sd.create_method("frskd", student, task, total_steps=10_000)               # doctest: +SKIP
>>> step = method(sd.Batch(images, target), progress)                                   # doctest: +SKIP
>>> step.loss.backward()                                                                # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors see; __getattr__ imports each on first use
    from . import losses
    from .commands.api import compare, describe_method, fit, load, train, wrap
    from .commands.trained import TrainedRun
    from .features.extractor import Taps
    from .method import Method
    from .methods import create_method, list_methods
    from .models import build_student
    from .report.comparison import Comparison
    from .runs.student import load_student
    from .task import Batch, Step
    from .tasks import Task, evaluate
    from .training.callbacks import Callback
    from .training.experiment import Experiment
    from .training.state import Result, TrainState

    __version__: str

_HOME = {  # public name -> module; imported on first use, so that the command line answers at once
    "Batch": "task",
    "Callback": "training.callbacks",
    "Comparison": "report.comparison",
    "Experiment": "training.experiment",
    "Method": "method",
    "Result": "training.state",
    "Step": "task",
    "Task": "tasks",
    "Taps": "features.extractor",
    "TrainState": "training.state",
    "TrainedRun": "commands.trained",
    "create_method": "methods",
    "list_methods": "methods",
    "build_student": "models",
    "compare": "commands.api",
    "describe_method": "commands.api",
    "evaluate": "tasks",
    "fit": "commands.api",
    "load": "commands.api",
    "load_student": "runs.student",
    "train": "commands.api",
    "wrap": "commands.api",
}
__all__ = [
    "Batch",
    "Callback",
    "Comparison",
    "Experiment",
    "Method",
    "Result",
    "Step",
    "Task",
    "Taps",
    "TrainState",
    "TrainedRun",
    "build_student",
    "compare",
    "create_method",
    "describe_method",
    "evaluate",
    "fit",
    "list_methods",
    "load",
    "load_student",
    "losses",
    "train",
    "wrap",
]


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


if not TYPE_CHECKING:  # else every misspelt name would be one of any type

    def __getattr__(name: str) -> Any:
        if name in _HOME:
            return getattr(import_module(f".{_HOME[name]}", __name__), name)
        if name == "losses":
            return import_module(".losses", __name__)
        if name == "__version__":
            return _find_version()
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _find_version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # 30 ms, in which Ctrl-C would print a traceback

    try:
        return version("selfdistill")
    except PackageNotFoundError:
        return "0+source"  # run from a source tree that is not installed
