"""A group of settings: defaults, short forms, and the names and types of its fields."""

from collections.abc import Callable, Mapping
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from ..errors import describe_misread_number


class Part(BaseModel):
    """A group of settings. Its `main` field takes the value when a plain one stands for the whole part."""

    model_config = ConfigDict(extra="forbid", validate_default=True, coerce_numbers_to_str=True, allow_inf_nan=False)
    main: ClassVar[str] = "name"
    drops_old_settings: ClassVar[bool] = False  # whether another main value drops what was set beside the old one

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, value: Any) -> Any:
        """A plain value is the main field's, nothing means the defaults, and one item makes a list of one."""
        if value is None:
            return {}
        if isinstance(value, BaseModel):
            return value
        values = value if isinstance(value, dict) else {cls.main: value}
        return {str(name): cls._as_list(str(name), item) for name, item in values.items()}

    @field_validator("*", mode="wrap")
    @classmethod
    def _refuse_misread_numbers(cls, value: Any, validate: Callable[[Any], Any]) -> Any:
        result = validate(value)
        if problem := describe_misread_number(value, result):
            raise ValueError(problem)
        return result

    @classmethod
    def _as_list(cls, name: str, value: Any) -> Any:
        types = find_field_types(cls, name)
        single = value is not None and not isinstance(value, list | tuple | dict)
        return [value] if single and list in types and str not in types else value

    def flatten(self, exclude: set[str] | None = None) -> dict[str, Any]:
        """Return every setting as plain data under its dotted name, without those in `exclude`."""
        return flatten(self.model_dump(mode="json", exclude=exclude))


def find_part_class(part: type[Part] | None, name: str) -> type[Part] | None:
    """Return the class of the part called `name` inside `part`, None for a plain field."""
    types = find_field_types(part, name) if part is not None else set()
    return next((cls for cls in types if issubclass(cls, Part)), None)


def find_field_types(part: type[Part], name: str) -> set[type]:
    """Return the types that the field `name` takes; none for a name that is no field."""
    field = part.model_fields.get(name)
    return set() if field is None else _list_plain_types(field.annotation)


def _list_plain_types(annotation: Any) -> set[type]:
    """Return the plain types in an annotation: of `list[str] | None` list and NoneType."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _list_plain_types(arguments[0])
    if origin is Literal:
        return {type(value) for value in arguments}
    if origin in (Union, UnionType):
        return set().union(*map(_list_plain_types, arguments))
    return {origin or annotation}


def list_settings(part: type[Part], prefix: str = "") -> list[str]:
    """Return every legal dotted name below a part. Hyper-parameters of methods are not among them."""
    names = []
    for name in part.model_fields:
        names.append(prefix + name)
        inner = find_part_class(part, name)
        if inner is not None:
            names += list_settings(inner, f"{prefix}{name}.")
    return names


def flatten(values: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Return every value of nested mappings under its dotted name.

    >>> flatten({"optim": {"lr": 0.1, "schedule": "step"}, "seed": 0})
    {'optim.lr': 0.1, 'optim.schedule': 'step', 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
