"""Settings over settings: a file over its base, and `name=value` words over both."""

from typing import Any

import yaml

from ..errors import PLAIN_NUMBER
from .files import parse_yaml
from .part import Part, find_field_types, find_part_class, list_settings


def merge(values: dict[str, Any], changes: dict[str, Any], part: type[Part] | None) -> dict[str, Any]:
    """Return `values` of a `part` with `changes` over them.

    Mappings merge name by name; an empty mapping and everything else replaces. A plain value for a part is that of
    its main field. Changes that name another method drop the settings of the old one.
    """
    if part is not None and part.drops_old_settings and part.main in changes:
        old = values.get(part.main, changes[part.main])
        values = values if old == changes[part.main] else {}
    merged = dict(values)
    for name, value in changes.items():
        inner = find_part_class(part, name)
        value, old = expand(value, inner), expand(values.get(name), inner)
        merges = isinstance(value, dict) and isinstance(old, dict) and value
        merged[name] = merge(old, value, inner) if merges else value
    return merged


def expand(value: Any, part: type[Part] | None) -> Any:
    """Return the mapping that a plain value is short for, where a `part` stands."""
    return value if part is None or value is None or isinstance(value, dict) else {part.main: value}


def apply_word(values: dict[str, Any], word: str, root: type[Part]) -> None:
    """Put a `name=value` word into the nested `values` of a `root`, in place. A mapping replaces what is there."""
    name, equals, text = word.partition("=")
    if not equals:
        hint = f"; write {word}=VALUE" if word in list_settings(root) else ""
        raise ValueError(f"{word!r} is neither a recipe nor name=value{hint}")
    *parents, last = name.split(".")
    target, part = values, root
    for parent in parents:
        part = find_part_class(part, parent)
        old = expand(target.get(parent), part)
        target[parent] = old if isinstance(old, dict) else {}
        target = target[parent]
    value = read_text(text, set() if part is None else find_field_types(part, last))
    if isinstance(value, dict) and any(":" in str(key) and item is None for key, item in value.items()):
        raise ValueError(f"{word!r} needs a space behind each colon, and quotes around all: '{name}={{depth: 3}}'")
    if find_part_class(part, last) is not None and not isinstance(value, dict):
        target[last] = merge(target, {last: value}, part)[last]
    else:
        target[last] = value


def write_word(name: str, value: Any) -> str:
    """Return the word that gives a setting this plain value.

    >>> write_word("max_steps", None), write_word("optim.milestones", [0.5, 0.75]), write_word("optim.nesterov", True)
    ('max_steps=null', 'optim.milestones=[0.5, 0.75]', 'optim.nesterov=true')
    """
    text = yaml.safe_dump(value, default_flow_style=True, width=1000).removesuffix("...\n").strip()
    return f"{name}={value if isinstance(value, str) else text}"


def read_text(text: str, types: set[type]) -> Any:
    """Return what a word says for a field of these types: a string where one is wanted, else what YAML reads.

    1e-3 is a number, null nothing, and commas make a list where one is allowed or the field is a method's own.
    """
    if text in ("null", "") and (type(None) in types or not types):
        return None
    if "," in text and (not types or types & {list, tuple}) and not text.lstrip().startswith(("[", "{", '"', "'")):
        return [read_text(item, set()) for item in text.split(",")]
    short_form = any(issubclass(cls, Part) for cls in types) and not text.lstrip().startswith("{")
    if short_form or (str in types and not text.lstrip().startswith(("[", "{"))):
        return text
    try:
        return float(text) if _is_decimal(text) else parse_yaml(text)
    except yaml.YAMLError:
        return text


def _is_decimal(text: str) -> bool:
    """Whether it is a number with a point or exponent; YAML takes 1e-3 for a string."""
    return PLAIN_NUMBER.fullmatch(text) is not None and not text.lstrip("+-").isdigit()
