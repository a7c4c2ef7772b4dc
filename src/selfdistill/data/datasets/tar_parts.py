"""The parts of a sample in a tar shard: which is the image, and which the label or the mask."""

import json
import math
from functools import lru_cache
from typing import Any, BinaryIO, Literal, NamedTuple

from .image_folder import EXTENSIONS
from .multi_label_tables import NAMES as SEVERAL_NAMES
from .table import LABEL_NAMES, MASK_NAMES

MOST_LABEL_BYTES = 2**16  # of a text or JSON part
TEXT_PARTS = ("cls", "txt", "label", "class")
MASK_WORDS = ("seg", *MASK_NAMES)
PICKLED = ("pyd", "pkl", "pickle", "pth", "pt")  # their readers run code


Holds = Literal["label", "labels", "mask"]  # what is learned of an image: one class, any number, or one for each pixel


class WantedParts(NamedTuple):
    """Which parts of a sample to use, by the user's choice; None for what usual names say."""

    holds: Holds = "label"
    image: str | None = None
    label: str | None = None  # a part, or a field of a JSON part


class Member(NamedTuple):
    """A file in an archive: `0007.seg.png` is the part `seg.png` of the sample `0007`."""

    key: str
    part: str
    offset: int
    size: int


def _is_image(part: str) -> bool:
    return f".{part.rpartition('.')[2]}" in EXTENSIONS


def _is_mask(part: str) -> bool:
    """Whether a part is called a mask: `seg.png`, `mask.png`, or `png.mask`."""
    return any(word in MASK_WORDS for word in part.split("."))


def is_usable(part: str) -> bool:
    return _is_image(part) or part in TEXT_PARTS or part == "json"


@lru_cache(maxsize=1024)
def choose_parts(parts: frozenset[str], wanted: WantedParts) -> tuple[str, str]:
    """The parts of a sample that hold the image and the label or mask; `ValueError` behind the sample's name."""
    image = wanted.image or _choose_image(parts, wanted)
    if image not in parts:
        raise ValueError(f"has no part {image} (data.image_column), only {_join(parts)}")
    others = parts - {image}
    label = _choose_mask(others, wanted) if wanted.holds == "mask" else _choose_label(others, wanted)
    return image, label


def _choose_image(parts: frozenset[str], wanted: WantedParts) -> str:
    images = [part for part in sorted(parts) if _is_image(part) and part != wanted.label]
    if not images:
        raise ValueError(f"has no image, only {_join(parts)}")
    plain = [part for part in images if not _is_mask(part)] or images
    plain = [part for part in plain if not part.endswith("npy")] or plain  # features beside an image
    plain = [part for part in plain if "." not in part] or plain  # jpg rather than thumbnail.jpg
    if wanted.holds == "mask" and wanted.label is None and len(plain) == 2 and len(images) == 2 and "png" in plain:
        return next(part for part in plain if part != "png")  # 0007.jpg with the mask 0007.png
    if len(plain) > 1:
        raise ValueError(f"has several images, {_join(frozenset(images))}; name one with data.image_column")
    return plain[0]


def _choose_mask(others: frozenset[str], wanted: WantedParts) -> str:
    masks = [wanted.label] if wanted.label is not None else [part for part in sorted(others) if _is_image(part)]
    masks = [part for part in masks if _is_mask(part)] or masks
    if len(masks) > 1:
        raise ValueError(f"has several images that may be its mask, {_join(frozenset(masks))}; name one with "
                         "data.label_column")  # fmt: skip
    if not masks or masks[0] not in others:
        called = f"{masks[0]} (data.label_column)" if masks else "seg.png or mask.png"
        raise ValueError(f"has no mask, called {called}, beside its image, only {_join(others)}")
    return masks[0]


def _choose_label(others: frozenset[str], wanted: WantedParts) -> str:
    if wanted.label in others:
        return str(wanted.label)
    usual = [*TEXT_PARTS[:1], "json", *TEXT_PARTS[1:]] if wanted.label is None else ["json"]
    label = next((part for part in usual if part in others), None)
    if label is not None:
        return label
    pickled = [part for part in sorted(others) if part.rpartition(".")[2] in PICKLED]
    if pickled:
        raise ValueError(
            f"has its label in {pickled[0]} at most, and reading that could run code; write it to a .cls, .txt or .json"
        )
    called = f"{wanted.label} (data.label_column)" if wanted.label is not None else "cls, txt or json"
    advice = "; task=segmentation learns from masks" if any(map(_is_mask, others)) else ""
    raise ValueError(f"has no label, called {called}, beside its image, only {_join(others)}{advice}")


def _join(parts: frozenset[str]) -> str:
    return ", ".join(part or "a part without a name" for part in sorted(parts)) or "nothing"


def read_label(file: BinaryIO, member: Member, wanted: WantedParts) -> Any:
    """The label, or the labels, in a text part, or in a field of a JSON part."""
    if member.size > MOST_LABEL_BYTES:
        raise ValueError(f"has a label of {member.size:,} bytes in {member.part}, which is no label")
    file.seek(member.offset)
    try:
        text = file.read(member.size).decode("utf-8-sig").strip()
        value = json.loads(text) if member.part.rpartition(".")[2] == "json" else text
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"has a {member.part} that cannot be read: {error}") from None
    if isinstance(value, dict):
        value = _choose_field(value, member.part, wanted)
    if wanted.holds == "labels" and value in ("", []):
        return []  # an image that shows no class
    if value is None or value == "" or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"has no label in {member.part} ({value!r})")
    return value


def _choose_field(values: dict[str, Any], part: str, wanted: WantedParts) -> Any:
    field = None if wanted.label == part else wanted.label
    usual = (field,) if field is not None else SEVERAL_NAMES if wanted.holds == "labels" else LABEL_NAMES
    for name in usual:
        if name in values:
            return values[name]
    names = ", ".join(sorted(values)[:8]) or "nothing"
    raise ValueError(f"has no field {field or ' or '.join(usual[:3])} in {part}, only {names}; name it with "
                     "data.label_column")  # fmt: skip
