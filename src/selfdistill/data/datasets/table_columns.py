"""Reads CSV and JSON-lines files into columns, which take far less memory than a dictionary for each row."""

import csv
import itertools
import json
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .text_files import open_text, refuse_repeated

BLOCK = 1000  # rows that are read before they are sorted into columns
FEW = 1000  # distinct texts of a column up to which equal ones are kept once

Choose = Callable[[list[str]], tuple[str, ...]]  # takes the names of all columns, and gives those to read


class Table(NamedTuple):
    """Rows by column; None where a row has no value."""

    path: str
    columns: dict[str, list[Any]]
    numbers: Sequence[int]  # the line of each row, from 1

    def __len__(self) -> int:
        return len(self.numbers)

    def say(self, row: int) -> str:
        """A row in words, for messages."""
        return f"line {self.numbers[row]} of {self.path}"

    def select(self, rows: np.ndarray) -> "Table":
        """Some of the rows."""
        indices = rows.tolist()
        columns = {name: [values[i] for i in indices] for name, values in self.columns.items()}
        return Table(self.path, columns, [self.numbers[i] for i in indices])


def read_table(path: str, choose: Choose = tuple) -> Table:
    """Reads the columns that `choose` names of a `.csv` or `.tsv` file with a header, or of a `.jsonl` file.

    Raises `ValueError` that names the line for rows that cannot be read, and for a file without rows.
    """
    columns = _Columns()
    is_csv = path.lower().endswith((".csv", ".tsv"))
    for block, numbers in _read_csv(path, choose) if is_csv else _read_json_lines(path):
        columns.add(block, numbers)
    if not columns.numbers:
        raise ValueError(f"{path} has no rows")
    chosen = choose([*columns.values]) if not is_csv else tuple(columns.values)
    return Table(path, {name: columns.values[name] for name in chosen}, columns.numbers)


class _Columns:
    """Columns that grow block by block. Equal texts in a column of few distinct ones are one object."""

    def __init__(self) -> None:
        self.values: dict[str, list[Any]] = {}
        self.numbers = array("q")
        self.texts: dict[str, dict[str, str]] = {}

    def add(self, block: dict[str, list[Any]], numbers: Sequence[int]) -> None:
        for name, values in block.items():
            texts = self.texts.setdefault(name, {})
            if len(texts) <= FEW:
                values = [texts.setdefault(value, value) if isinstance(value, str) else value for value in values]
            self.values.setdefault(name, [None] * len(self.numbers)).extend(values)
        self.numbers.extend(numbers)
        for values in self.values.values():
            values += [None] * (len(self.numbers) - len(values))


Block = tuple[dict[str, list[Any]], list[int]]  # some rows, by column, and their lines


def _read_csv(path: str, choose: Choose) -> Iterator[Block]:
    with open_text(path, "CSV") as file:
        text = next((line.strip() for line in file if line.strip()), "")
        file.seek(0)
        names_delimiter = text[:4].lower() == "sep=" and len(text) == 5  # the first line, for spreadsheets
        delimiter = text[4] if names_delimiter else _find_delimiter(path, text)
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        filled = ((row, reader.line_num) for row in reader if row)
        if names_delimiter:
            next(filled)
        header, _ = next(filled, ([], 0))
        refuse_repeated(header, path)
        places = {name: place for place, name in enumerate(header)}
        chosen: tuple[str, ...] = ()
        while block := [*itertools.islice(filled, BLOCK)]:
            rows, numbers = [row for row, _ in block], [number for _, number in block]
            for row, number in block:
                if len(row) > len(header):
                    where = f"line {number} of {path}"
                    raise ValueError(f"{where} has more fields than the header; quote what holds {delimiter!r}")
                row += [None] * (len(header) - len(row))
            chosen = chosen or choose(header)
            yield {name: [row[places[name]] for row in rows] for name in chosen}, numbers


def _find_delimiter(path: str, header: str) -> str:
    return "\t" if path.lower().endswith(".tsv") else max(",;\t", key=header.count)


def _read_json_lines(path: str) -> Iterator[Block]:
    with open_text(path, "JSON lines") as file:
        lines = ((number, text) for number, text in enumerate(file, 1) if text.strip())
        while block := [*itertools.islice(lines, BLOCK)]:
            rows = [_parse_json(text, f"line {number} of {path}") for number, text in block]
            names = dict.fromkeys(name for row in rows for name in row)
            yield {name: [row.get(name) for row in rows] for name in names}, [number for number, _ in block]


def _parse_json(text: str, where: str) -> dict[str, Any]:
    def read_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        refuse_repeated([name for name, _ in pairs], where)
        return dict(pairs)

    try:
        values = json.loads(text, object_pairs_hook=read_object)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON: {error}") from None
    except RecursionError:
        raise ValueError(f"{where} is not a row: it is nested too deep") from None
    if not isinstance(values, dict):
        raise ValueError(f"{where} holds a {type(values).__name__}, not an object with a path and a label")
    return values
