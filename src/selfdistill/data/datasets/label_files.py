"""Reads files that name mask values: palettes, lists of classes, ADE20K's table of objects."""

import csv
import json
import os
from collections.abc import Callable

from .label_map import LabelMap
from .mask_values import BORDER, Color
from .text_files import open_text, refuse_repeated


def find_label_map(folder: str) -> LabelMap | None:
    """Reads the label map from the first known file in `folder`; None if there is none."""
    for file, read in FILES.items():
        if os.path.isfile(path := os.path.join(folder, file)):
            return read(path)
    return None


def open_palette(name: str) -> LabelMap:
    """Reads the label map from the file that `data.palette` names."""
    path = os.path.abspath(os.path.expanduser(name))
    if not os.path.isfile(path):
        raise ValueError(f"data.palette={name} does not exist; it is a CSV with the header name,r,g,b")
    return read_colors(path) if path.lower().endswith(".txt") else read_palette(path)


def read_palette(path: str) -> LabelMap:
    """Reads names and colors from a CSV with the header name,r,g,b in any case; row i (from 0) names value i."""
    with open_text(path) as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        header = {(name or "").strip().lower(): name for name in reader.fieldnames or []}
        refuse_repeated([(name or "").strip().lower() for name in reader.fieldnames or []], path)
        if not header.keys() >= {"name", "r", "g", "b"}:
            raise ValueError(f"{path} has the columns {', '.join(header) or 'none'}; a palette has name, r, g, b")
        lines = [(reader.line_num, [(line[header[key]] or "").strip() for key in ("name", *"rgb")]) for line in reader]
    return _parse_palette(path, [(number, name, color) for number, (name, *color) in lines])


def read_colors(path: str) -> LabelMap:
    """Reads names and colors from lines `r g b name`."""
    with open_text(path) as file:
        lines = [(number, line.split(maxsplit=3)) for number, line in enumerate(file, 1) if line.strip()]
    return _parse_palette(
        path, [(number, line[3].strip() if len(line) > 3 else "", line[:3]) for number, line in lines]
    )


def _parse_palette(path: str, lines: list[tuple[int, str, list[str]]]) -> LabelMap:
    """Makes a label map from (line number, name, [r, g, b])."""
    palette: dict[int, Color] = {}
    for value, (number, name, texts) in enumerate(lines):
        if not name or not all(text.isdecimal() and int(text) < 256 for text in texts):
            raise ValueError(f"line {number} of {path} is no name with a color of three numbers from 0 to 255")
        red, green, blue = map(int, texts)
        if (red, green, blue) in palette.values():
            raise ValueError(f"line {number} of {path} has the color {(red, green, blue)} of a line above")
        palette[value] = (red, green, blue)
    return LabelMap({value: name for value, (_, name, _) in enumerate(lines)}, palette)


def read_names(path: str) -> LabelMap:
    """Reads one name per line; the first line names value 0."""
    with open_text(path) as file:
        lines = file.read().rstrip().splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise ValueError(f"line {number} of {path} is empty; it must name the class of value {number - 1}")
    return LabelMap({value: line.strip() for value, line in enumerate(lines)})


def read_json_names(path: str) -> LabelMap:
    """Reads a JSON list of the names of the values 0, 1, ..., or an object of values and their names."""
    with open_text(path) as file:
        try:
            names = json.load(file)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{path} is not JSON: {error}") from None
    if isinstance(names, list):
        names = {str(value): name for value, name in enumerate(names)}
    if not isinstance(names, dict) or not all(value.isdecimal() and isinstance(names[value], str) for value in names):
        raise ValueError(f'{path} is no list of class names, and no object such as {{"0": "cat"}}')
    return LabelMap({int(value): name.strip() for value, name in names.items()})


def read_ade20k_objects(path: str) -> LabelMap:
    """Reads ADE20K's table of 150 classes: value first, names last. Value 0 is no class and is ignored."""
    with open_text(path) as file:
        lines = [line.rstrip("\n").split("\t") for line in file if line[:1].isdecimal()]
    names = {int(line[0]): line[-1].split(",")[0].strip() for line in lines}
    return LabelMap(names, ignored=frozenset({0, BORDER}))


FILES: dict[str, Callable[[str], LabelMap]] = {
    "class_dict.csv": read_palette,
    "palette.csv": read_palette,
    "label_colors.txt": read_colors,
    "classes.txt": read_names,
    "classes.json": read_json_names,
    "labels.txt": read_names,
    "objectInfo150.txt": read_ade20k_objects,
}
