"""Self-distillation for vision: train any PyTorch image network to be better without a bigger teacher.

>>> import selfdistill as sd                                                            # doctest: +SKIP
>>> task = sd.Task("classification", 10, (3, 32, 32))                                   # doctest: +SKIP
>>> method = sd.create_method("frskd", student, task, total_steps=10_000)               # doctest: +SKIP
>>> step = method(sd.Batch(images, target), progress)                                   # doctest: +SKIP
>>> step.loss.backward()                                                                # doctest: +SKIP
"""

from importlib import import_module
from typing import Any

_HOME = {  # public name -> module; imported on first use, so that the command line answers at once
    "Batch": "task",
    "Callback": "training.callbacks",
    "Experiment": "training.experiment",
    "Method": "method",
    "Step": "task",
    "Task": "tasks",
    "Taps": "features.extractor",
    "create_method": "methods",
    "list_methods": "methods",
    "build_student": "models",
    "evaluate": "tasks",
    "fit": "training.loop",
    "load_student": "runs.student",
}
__all__ = [*_HOME, "losses"]


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
