"""What the values of masks mean: by the recipe, by files beside the data, or by the masks alone."""

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from ...config.recipe import DataPart
from ...errors import nearest
from .base import DECODED, over_rows, spread
from .mask_values import Colour
from .masks import UNKNOWN, VOID, Legend, Pairs
from .splits import Found, Names

NO_CLASS = ("void", "ignore", "unlabeled", "unlabelled")  # names of what counts for nothing
BORDER = 255  # what counts for nothing where nothing else is said
STORED = (-(2**15), 2**16 - 1)  # the smallest and the largest value that may be named
MOST = 1000  # larger values that nobody named are not taken for classes


def read_masks(found: Found, part: DataPart, source: str, classes: Sequence[str] | None = None) -> Found:
    """`found` with its `Pairs` as `MaskRows`, all of them read by one legend.

    Of the source that the recipe names, `data.classes` names the values 0, 1, ..., else the source itself does. Another
    source has its own names; without any it is taken to store what that of the recipe stores, else the numbers of
    `classes`. Where nobody names the values, those of the training masks count: "0" up to the largest.
    """
    if part.palette is not None and (source == part.source or found.names is None):
        found = found._replace(names=_named_palette(part.palette))
    names, void = _meaning(found, part, source, classes)
    legend = _legend(source, names, void)
    return found._replace(splits={split: pairs.read_by(legend) for split, pairs in found.splits.items()})


def _meaning(
    found: Found, part: DataPart, source: str, classes: Sequence[str] | None
) -> tuple[Names, Sequence[int | str] | None]:
    """The names of values, and which of them `data.void` takes out."""
    elsewhere = source != part.source
    if found.names is not None and (part.classes is None or elsewhere):
        return (_of_another(source, found.names, part), None) if elsewhere else (found.names, part.void)
    if part.classes is not None:
        return _renamed(found.names, part.classes), part.void
    if classes is not None:
        numbered = all(name.isdecimal() for name in classes)
        return Names({int(name) if numbered else k: name for k, name in enumerate(classes)}), part.void
    return _counted(source, found, part.void), part.void


def _of_another(source: str, names: Names, part: DataPart) -> Names:
    """The names of a source whose values are its own: of `data.void`, what it calls by the same names is void too."""
    known = part.classes or []
    void = {str(known[each] if isinstance(each, int) and 0 <= each < len(known) else each) for each in part.void or []}
    same = {value for value, name in names.names.items() if name in void}
    return names._replace(void=frozenset(_void(source, names, None) | same))


def _renamed(names: Names | None, classes: Sequence[str]) -> Names:
    if names is None:
        return Names(dict(enumerate(classes)))
    if names.colours and len(names.colours) != len(classes):
        raise ValueError(f"data.classes has {len(classes)} names, and the palette {len(names.colours)} colours")
    return names._replace(names=dict(enumerate(classes)))


def _counted(source: str, found: Found, void: Sequence[int | str] | None) -> Names:
    """The values from 0 to the largest of the training masks, named by their numbers."""
    left_out = {int(each) for each in void if str(each).isdecimal()} if void is not None else {BORDER}
    pairs = found.splits.get("train", next(iter(found.splits.values()), None))
    if not pairs:
        raise ValueError(f"{source} has no image with a mask")
    values = _values(pairs)
    largest = max(values - left_out, default=0)
    masks = f"{pairs.mask_name(0)} and others"
    if largest > MOST:
        raise ValueError(f"{masks} hold values up to {largest}; name the classes in data.classes")
    if void is None and values == {0, BORDER}:
        raise ValueError(
            f"{masks} hold the values 0 and 255 only, and 255 is void where it has no name; name both in a palette,"
            " a CSV with the lines name,r,g,b and NAME,0,0,0 and NAME,255,255,255"
        )
    return Names({value: str(value) for value in range(largest + 1)})


def _values(pairs: Pairs) -> set[int]:
    """All values in the masks of up to 5,000 rows; `ValueError` for the first mask that cannot be read."""
    blocks = over_rows(lambda block: [pairs.values_in(i) for i in block], spread(len(pairs), DECODED))
    return {value for block in blocks for values in block for value in values}


def _legend(source: str, names: Names, void: Sequence[int | str] | None) -> Legend:
    """The named values that count, numbered in their order."""
    left_out = _void(source, names, void)
    kept = {value: name for value, name in sorted(names.names.items()) if value not in left_out}
    classes = tuple(kept.values())
    for name in classes:
        if classes.count(name) > 1:
            raise ValueError(f"{source} has two classes called {name!r}; every class needs a name of its own")
    if len(classes) < 2:
        what = f"only one class, {classes[0]!r}" if classes else "no class"
        raise ValueError(f"the masks of {source} have {what}; a network needs at least two to tell apart")
    numbers = {value: k for k, value in enumerate(kept)} | dict.fromkeys(sorted(left_out), VOID)
    assert UNKNOWN not in numbers.values()
    return Legend(classes, numbers, names.colours, names.names)


def _void(source: str, names: Names, void: Sequence[int | str] | None) -> set[int]:
    if void is not None:
        return {value for each in void for value in _values_called(source, names, each)}
    if names.void is not None:
        return set(names.void)
    called = {value for value, name in names.names.items() if name.lower() in NO_CLASS}
    return called | ({BORDER} - names.names.keys())


def _values_called(source: str, names: Names, each: int | str) -> list[int]:
    if str(each).removeprefix("-").isdecimal() and not STORED[0] <= int(each) <= STORED[1]:
        raise ValueError(f"data.void={each} is no value of a mask; these are from {STORED[0]} to {STORED[1]}")
    if isinstance(each, int):
        return [each]
    values = [value for value, name in names.names.items() if name.lower() == each.lower()]
    if not values and not each.isdecimal():
        known = nearest(each, names.names.values())
        raise ValueError(f"data.void={each} is no class of {source}{known}")
    return values or [int(each)]


def names_beside(folder: str) -> Names | None:
    """Names of values by the first of the usual files that `folder` holds."""
    for file, read in FILES.items():
        if os.path.isfile(path := os.path.join(folder, file)):
            return read(path)
    return None


def _named_palette(name: str) -> Names:
    path = os.path.abspath(os.path.expanduser(name))
    if not os.path.isfile(path):
        raise ValueError(f"data.palette={name} does not exist; it is a CSV with the header name,r,g,b")
    return _read_colours(path) if path.lower().endswith(".txt") else read_palette(path)


def read_palette(path: str) -> Names:
    """The names and colours of a CSV with the header name,r,g,b in any case; a row's number is its value."""
    with _opened(path) as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        header = {(name or "").strip().lower(): name for name in reader.fieldnames or []}
        if not header.keys() >= {"name", "r", "g", "b"}:
            raise ValueError(f"{path} has the columns {', '.join(header) or 'none'}; a palette has name, r, g, b")
        lines = [(reader.line_num, [(line[header[key]] or "").strip() for key in ("name", *"rgb")]) for line in reader]
    return _palette(path, [(number, name, colour) for number, (name, *colour) in lines])


def _read_colours(path: str) -> Names:
    """Lines of `r g b name`."""
    with _opened(path) as file:
        lines = [(number, line.split(maxsplit=3)) for number, line in enumerate(file, 1) if line.strip()]
    return _palette(path, [(number, line[3].strip() if len(line) > 3 else "", line[:3]) for number, line in lines])


def _palette(path: str, lines: list[tuple[int, str, list[str]]]) -> Names:
    colours: dict[int, Colour] = {}
    for value, (number, name, texts) in enumerate(lines):
        if not name or not all(text.isdecimal() and int(text) < 256 for text in texts):
            raise ValueError(f"line {number} of {path} is no name with a colour of three numbers from 0 to 255")
        red, green, blue = map(int, texts)
        if (red, green, blue) in colours.values():
            raise ValueError(f"line {number} of {path} has the colour {(red, green, blue)} of a line above")
        colours[value] = (red, green, blue)
    return Names({value: name for value, (_, name, _) in enumerate(lines)}, colours)


def _read_lines(path: str) -> Names:
    """One name per line, the first of value 0."""
    with _opened(path) as file:
        lines = file.read().rstrip().splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise ValueError(f"line {number} of {path} is empty; it must name the class of value {number - 1}")
    return Names({value: line.strip() for value, line in enumerate(lines)})


def _read_objects(path: str) -> Names:
    """ADE20K's table of its 150 classes: the value first, names last; the value 0 is what none of them is."""
    with _opened(path) as file:
        lines = [line.rstrip("\n").split("\t") for line in file if line[:1].isdecimal()]
    return Names({int(line[0]): line[-1].split(",")[0].strip() for line in lines}, void=frozenset({0, BORDER}))


@contextmanager
def _opened(path: str) -> Iterator[TextIO]:
    """A text file, whose wrong encoding or quoting is a `ValueError`."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            yield file
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as text: {error}") from None


FILES: dict[str, Callable[[str], Names]] = {
    "class_dict.csv": read_palette,
    "palette.csv": read_palette,
    "label_colors.txt": _read_colours,
    "classes.txt": _read_lines,
    "labels.txt": _read_lines,
    "objectInfo150.txt": _read_objects,
}
