"""Hyper-parameters: annotated class attributes with a default, as in a dataclass, and a description.

>>> class Objective(Configurable):
...     alpha: Weight = hparam(2.0, "weighs the soft-label loss", per_pixel=1.0)
...     temperature: Positive = hparam(4.0, "softens both distributions", used_with="alpha")
>>> Objective.alpha, Objective.defaults(), Objective.defaults("pixel")
(2.0, {'alpha': 2.0, 'temperature': 4.0}, {'alpha': 1.0, 'temperature': 4.0})
"""

import inspect
import math
from collections.abc import Callable, Collection, Mapping
from numbers import Integral
from typing import Annotated, Any, ClassVar, NamedTuple, TypeVar, get_origin, get_type_hints

from annotated_types import Ge, Interval
from torch import nn

from .errors import describe_misread_number, did_you_mean

SHORT_RUN = 20_000  # optimizer steps; the papers' schedules have 50,000 and more
T = TypeVar("T")
Weight = Annotated[float, Interval(ge=0, lt=math.inf)]  # of a loss term
Positive = Annotated[float, Interval(gt=0, lt=math.inf)]
Share = Annotated[float, Interval(ge=0, le=1)]
Count = Annotated[int, Ge(1)]


class ShortRun(NamedTuple):
    """What a `short_run` function may read."""

    settings: Mapping[str, Any]  # all of the method's; those declared further down are as given or usual
    given: Collection[str]  # names of those that the user set
    steps: int  # optimizer steps of the whole run
    output: str  # by what scores belong to, image | pixel
    is_tuning: bool  # whether the student starts from trained weights
    student: nn.Module | None  # None where it is not there yet


class Hyperparameter(NamedTuple):
    """A hyper-parameter as `hparam` declares it. Read from the class or an instance it is the default."""

    default: Any
    description: str = ""
    per_pixel: Any = None
    short_run: Any = None
    used_with: tuple[str, ...] = ()

    def __get__(self, instance: Any, owner: type) -> Any:
        return self.default


def hparam(
    default: T,
    description: str,
    *,
    per_pixel: T | None = None,
    short_run: T | Callable[[ShortRun], T] | None = None,
    used_with: str | tuple[str, ...] = (),
) -> T:
    """Declares a hyper-parameter of a method, beside its name and type.

    Args:
        default: The value where the user gives none.
        description: What it does, for the method's card.
        per_pixel: Another default for tasks that score pixels.
        short_run: Another default for schedules that are far shorter than the paper's, or a function that makes it of
            what is known of the run. Such defaults are measured, not published.
        used_with: The weight without which it has no effect, or several of which one is enough. Where they are 0,
            another value than the default is refused.
    """
    names = (used_with,) if isinstance(used_with, str) else used_with
    return Hyperparameter(default, description, per_pixel, short_run, names)  # type: ignore[return-value]


class Configurable:
    """Base of classes with hyper-parameters.

    An attribute that a class annotates and gives a value is one. A subclass fixes it by a value without annotation.
    """

    @classmethod
    def hyperparameters(cls) -> dict[str, Hyperparameter]:
        """What is declared, by name, in the order it is written."""
        declared: dict[str, Hyperparameter] = {}
        for base in reversed(cls.__mro__):
            if not issubclass(base, Configurable):
                continue
            hints = inspect.get_annotations(base)
            for name, value in vars(base).items():
                if name in hints and ClassVar not in (hints[name], get_origin(hints[name])):
                    declared[name] = value if isinstance(value, Hyperparameter) else Hyperparameter(value)
                else:
                    declared.pop(name, None)
        return declared

    @classmethod
    def defaults(cls, output: str = "image") -> dict[str, Any]:
        """Names and defaults for tasks that score images, or each "pixel"."""
        return {
            name: declared.per_pixel if output == "pixel" and declared.per_pixel is not None else declared.default
            for name, declared in cls.hyperparameters().items()
        }

    @classmethod
    def short_run_defaults(
        cls,
        output: str,
        given: Mapping[str, Any],
        total_steps: int,
        *,
        is_tuning: bool = False,
        student: nn.Module | None = None,
    ) -> dict[str, Any]:
        """What to add to the `given` settings on a schedule of so many steps; usual defaults left out.

        `is_tuning`: whether the student starts from trained weights. Raises `ValueError` for less than one step.
        """
        if not isinstance(total_steps, Integral) or total_steps < 1:
            raise ValueError(f"total_steps={total_steps!r} is how many optimizer steps training takes, 1 or more")
        if total_steps >= SHORT_RUN:
            return {}
        defaults = cls.defaults(output)
        settings = cls.validate({**defaults, **given})
        for name, declared in cls.hyperparameters().items():
            if declared.short_run is None or name in given or cls._unused(name, settings):
                continue
            value, run = declared.short_run, ShortRun(settings, given, int(total_steps), output, is_tuning, student)
            settings[name] = value(run) if callable(value) else value
        return {name: value for name, value in settings.items() if name not in given and value != defaults[name]}

    @classmethod
    def validate(cls, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Every hyper-parameter's value, the defaults filled in.

        Raises `ValueError`, with the nearest legal name or the allowed values, for one that does not exist or has the
        wrong type or range.
        """
        from pydantic import TypeAdapter, ValidationError

        defaults = cls.defaults()
        for name in settings.keys() - defaults.keys():
            raise ValueError(f"{cls.__name__} has no hyper-parameter {name!r}{did_you_mean(name, defaults)}")
        hints = get_type_hints(cls, include_extras=True)
        values = {}
        for name, default in defaults.items():
            try:
                values[name] = TypeAdapter(hints[name]).validate_python(settings.get(name, default))
            except ValidationError as error:
                message = error.errors()[0]["msg"].removeprefix("Input ")
                raise ValueError(f"{cls.__name__}: {name}={settings[name]!r} {message}") from None
            if problem := describe_misread_number(settings.get(name, default), values[name]):
                raise ValueError(f"{cls.__name__}: {name}={settings[name]!r} {problem}")
        return values

    def configure(self, output: str, given: Mapping[str, Any]) -> None:
        """Sets every hyper-parameter as an attribute.

        Raises `ValueError` for illegal values and for those that others leave without effect.
        """
        self._defaults = self.defaults(output)
        values = self.validate({**self._defaults, **given})
        for name, value in values.items():
            setattr(self, name, value)
        for name in values:
            if reason := self._unused(name, values):
                self.refuse_unused([name], True, reason)

    def refuse_unused(self, names: list[str], unused: bool, because: str) -> None:
        """Raises `ValueError` where `unused` and one of the hyper-parameters `names` is not at its default."""
        for name in names:
            value = getattr(self, name)
            if unused and value != self._defaults.get(name, value):
                raise ValueError(f"{type(self).__name__}: {name}={value} has no effect with {because}")

    @classmethod
    def _unused(cls, name: str, settings: Mapping[str, Any]) -> str:
        """Why a hyper-parameter has no effect, as "alpha=0"; empty where it has one."""
        declared = cls.hyperparameters().get(name, Hyperparameter(None))
        weights = {other: settings.get(other, getattr(cls, other)) for other in declared.used_with}
        reasons = [cls._unused(other, settings) if weight else f"{other}=0" for other, weight in weights.items()]
        return " and ".join(reasons) if all(reasons) else ""
