"""Recipe files: YAML, the files that a file builds on, and recipes written out."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from .names import find_recipe
from .part import Part
from .recipe import Recipe

MOST_VALUES = 100_000
TIMESTAMP = "tag:yaml.org,2002:timestamp"
PLAIN_NUMBERS = {  # as YAML 1.1 writes them, without octal, hexadecimal and sexagesimal numbers and underscores
    "tag:yaml.org,2002:int": re.compile(r"[-+]?(0|[1-9][0-9]*)$"),
    "tag:yaml.org,2002:float": re.compile(
        r"([-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
    ),
}


class RecipeFile(NamedTuple):
    """What one file says, without the files that it builds on."""

    path: Path
    values: dict[str, Any]


def load_with_bases(path: Path) -> list[RecipeFile]:
    """Return what a recipe file says, behind the files that it builds on, the deepest base first.

    `base:` names a file beside this one, or a recipe that comes with the package. Raises `ValueError` for a base that
    is not text or not there, and for files that build on each other.
    """
    files: list[RecipeFile] = []
    while True:
        values = load_yaml(path)
        has_base, base = "base" in values, values.pop("base", None)
        files.insert(0, RecipeFile(path, values))
        if not has_base:
            return files
        if not isinstance(base, str) or not base.strip():
            raise ValueError(f"{path}: base={base!r} is not the name of a recipe")
        try:
            path = find_recipe(base, path.parent)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        if path.resolve() in [file.path.resolve() for file in files]:
            circle = " on ".join(str(file.path) for file in reversed(files))
            raise ValueError(f"recipes cannot build on each other: {circle} on {path}")


def load_yaml(path: Path) -> dict[str, Any]:
    """Return the names and values of a YAML file; `ValueError` in one sentence for a file that is anything else."""
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
        refuse_many_values(values)
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ValueError(f"{path} cannot be read as YAML: it is nested too deep") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}, not names and values")
    return {str(name): value for name, value in values.items()}


def parse_yaml(text: str) -> Any:
    """Return what YAML says; numbers are plain decimals, and 010, 0x10, 1_0, 1:30 and 2020-01-01 are text."""
    return yaml.load(text, Loader=_Loader)


def refuse_many_values(values: Any) -> None:
    """Raises `yaml.YAMLError` for values that fill the memory once they are written out, as nested aliases do."""
    waiting, count = [values], 0
    while waiting:
        value = waiting.pop()
        inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
        count += 1 + len(inner)
        waiting += inner
        if count > MOST_VALUES:
            raise yaml.YAMLError(f"it holds more than {MOST_VALUES:,} values")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # the one in C is ten times as fast
    """YAML in which a name may stand once only, numbers are plain decimals, and dates are text."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in (*PLAIN_NUMBERS, TIMESTAMP)]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
            raise yaml.YAMLError("merge keys (<<) are not read; write the settings out")
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        for name in names:
            if names.count(name) > 1:
                raise yaml.YAMLError(f"{name} stands twice")
        return super().construct_mapping(node, deep)


for _tag, _pattern in PLAIN_NUMBERS.items():
    _Loader.add_implicit_resolver(_tag, _pattern, list("-+.0123456789"))


def dump(recipe: Recipe) -> str:
    """Return the recipe as YAML that `read` understands, complete and without a base."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, width=120)


def dump_values(values: dict[str, Any]) -> str:
    """Return nested values as YAML, one line for each setting."""
    lines = []
    for name, value in values.items():
        if isinstance(value, dict) and value:
            lines += [f"{name}:", *(f"  {key}: {_one_line(item)}" for key, item in value.items())]
        else:
            lines.append(f"{name}: {_one_line(value)}")
    return "\n".join(lines) + "\n"


def dump_commented(recipe: Recipe) -> str:
    """Return the recipe as YAML, each setting with what it means."""
    return "\n".join(_format_commented(recipe)) + "\n"


def _format_commented(part: Part, indent: str = "") -> Iterator[str]:
    values = part.model_dump(mode="json")
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        if isinstance(value, Part):
            yield f"{indent}{name}:  # {(value.__doc__ or '').splitlines()[0]}"
            yield from _format_commented(value, indent + "  ")
            continue
        yield f"{indent}{name}: {_one_line(values[name])}" + (f"  # {field.description}" if field.description else "")
    for name, value in (part.model_extra or {}).items():
        yield f"{indent}{name}: {_one_line(value)}"


def _one_line(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
