"""What settings have in common: groups with defaults and short forms, `name=value` words, YAML, and clear refusals."""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, model_validator


class Part(BaseModel):
    """A group of settings. Its `main` field takes the value when a plain one stands for the whole part."""

    model_config = ConfigDict(extra="forbid", validate_default=True, coerce_numbers_to_str=True, allow_inf_nan=False)
    main: ClassVar[str] = "name"
    anew: ClassVar[bool] = False  # whether a word that names another main value drops the part's other settings

    @model_validator(mode="before")
    @classmethod
    def _from_short(cls, value: Any) -> Any:
        """A plain value is the main field's, nothing means the defaults, and one item makes a list of one."""
        if value is None:
            return {}
        if isinstance(value, BaseModel):
            return value
        values = value if isinstance(value, dict) else {cls.main: value}
        return {str(name): cls._listed(str(name), each) for name, each in values.items()}

    @classmethod
    def _listed(cls, name: str, value: Any) -> Any:
        kinds = _kinds(cls, name)
        single = value is not None and not isinstance(value, list | tuple | dict)
        return [value] if single and list in kinds and str not in kinds else value


def refuse_idle(part: Part, names: list[str], idle: bool, because: str) -> None:
    """Raises `ValueError` where `idle` and one of these fields is not at its default."""
    for name in names:
        if idle and getattr(part, name) != type(part).model_fields[name].default:
            raise ValueError(f"{name}={getattr(part, name)} has no effect with {because}")


def commented_lines(part: Part, indent: str = "") -> Iterator[str]:
    """A part as lines of YAML, each setting with what it means."""
    values = part.model_dump(mode="json")
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if isinstance(value, Part):
            yield f"{indent}{name}:  # {(value.__doc__ or '').splitlines()[0]}"
            yield from commented_lines(value, indent + "  ")
            continue
        yield f"{indent}{name}: {_one_line(values[name])}" + (f"  # {field.description}" if field.description else "")
    for name, value in (part.model_extra or {}).items():
        yield f"{indent}{name}: {_one_line(value)}"


def _one_line(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def load_yaml(path: Path) -> dict[str, Any]:
    """The names and values of a YAML file; `ValueError` in one sentence for a file that is anything else."""
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise ValueError(f"there is no recipe {path}") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}, not names and values")
    return {str(name): value for name, value in values.items()}


class _Loader(yaml.SafeLoader):
    """YAML in which a name may stand once only."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise yaml.YAMLError(f"{name} stands twice")
        return super().construct_mapping(node, deep)


def override(values: dict[str, Any], word: str, root: type[Part]) -> None:
    """Puts a `name=value` word into the nested `values` of a `root`."""
    name, equals, text = word.partition("=")
    if not equals:
        raise ValueError(f"{word!r} is neither a recipe file nor name=value")
    *parents, last = name.split(".")
    place, part = values, root
    for parent in parents:
        part = _part(part, parent)
        held = place.get(parent)
        if not isinstance(held, dict):
            place[parent] = held = {} if held is None or part is None else {part.main: held}
        place = held
    value = _value(text, set() if part is None else _kinds(part, last))
    if isinstance(value, dict) and any(":" in str(key) and each is None for key, each in value.items()):
        raise ValueError(f"{word!r} needs a space behind each colon, and quotes around all: '{name}={{depth: 3}}'")
    part = _part(part, last)
    held = place.get(last)
    if part is not None and not isinstance(value, dict) and isinstance(held, dict):
        other = part.anew and held.get(part.main, value) != value
        place[last] = {**({} if other else held), part.main: value}  # a short form beside the part's other fields
    else:
        place[last] = value


def _part(part: type[Part] | None, name: str) -> type[Part] | None:
    """The class of the part that `name` names inside `part`, None for a plain field."""
    kinds = _kinds(part, name) if part is not None else set()
    return next((kind for kind in kinds if issubclass(kind, Part)), None)


def _kinds(part: type[Part], name: str) -> set[type]:
    """The types that the field `name` takes; none for a name that is no field."""
    field = part.model_fields.get(name)
    return set() if field is None else _types(field.annotation)


def _types(annotation: Any) -> set[type]:
    """The plain types in an annotation: of `list[str] | None` list and NoneType."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _types(inner[0])
    if origin is Literal:
        return {type(each) for each in inner}
    if origin in (Union, UnionType):
        return set().union(*map(_types, inner))
    return {origin or annotation}


def _value(text: str, kinds: set[type]) -> Any:
    """What a word says for a field of these types: text as it was typed where text is wanted, else as YAML reads it.

    1e-3 is a number, null nothing, and commas make a list where one is allowed or the field is a method's own.
    """
    if text in ("null", "") and (type(None) in kinds or not kinds):
        return None
    if "," in text and (not kinds or kinds & {list, tuple}) and not text.lstrip().startswith(("[", "{", '"', "'")):
        return [_value(item, set()) for item in text.split(",")]
    short = any(issubclass(kind, Part) for kind in kinds) and not text.lstrip().startswith("{")
    if short or (str in kinds and not text.lstrip().startswith(("[", "{"))):
        return text
    try:
        return float(text) if _is_decimal(text) else yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _is_decimal(text: str) -> bool:
    """Whether it is a number with a point or exponent; YAML takes 1e-3 for a word."""
    try:
        float(text)
    except ValueError:
        return False
    return not text.lstrip("+-").isdigit() and any(character.isdigit() for character in text)


def sentences(problems: list[Any], root: type[Part]) -> str:
    """One sentence for each wrong value, whatever the number of types it might have had."""
    known, found = names_in(root), dict[str, list[Any]]()
    for problem in problems:
        path = [str(step) for step in problem["loc"]]
        ends = (".".join(path[:end]) for end in range(len(path), 0, -1))
        extra = problem["type"] == "extra_forbidden"
        name = ".".join(path) if extra else next((end for end in ends if end in known), ".".join(path))
        found.setdefault(name, []).append(problem)
    return "; ".join(_sentence(name, several, known) for name, several in found.items())


def _sentence(name: str, problems: list[Any], known: list[str]) -> str:
    if problems[0]["type"] == "extra_forbidden":
        return unknown_name(name, known)
    told = [problem["msg"].removeprefix("Input ").removeprefix("Value error, ") for problem in problems]
    message = " or ".join(dict.fromkeys(told))
    if problems[0]["type"] == "value_error":  # of settings that do not go together
        return f"{name}.{message}" if name else message
    return f"{name}={problems[0]['input']!r} {message}" if name else message


def unknown_name(name: str, known: Iterable[str]) -> str:
    """The sentence that says so and gives the nearest legal name."""
    known = list(known)
    same = [other for other in known if other.rpartition(".")[2] == name]
    near = same or difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    siblings = [other for other in known if other.rpartition(".")[0] == name.rpartition(".")[0]]
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(siblings or known)}"
    return f"no setting is called {name!r}; {hint}"


def names_in(part: type[Part], prefix: str = "") -> list[str]:
    """Every legal dotted name below a part, those that it takes beside its fields aside."""
    names = []
    for name in part.model_fields:
        names.append(prefix + name)
        inner = _part(part, name)
        if inner is not None:
            names += names_in(inner, f"{prefix}{name}.")
    return names


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every value of nested mappings under its dotted name."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
