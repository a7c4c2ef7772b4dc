"""Parquet files that are read row group by row group: neither unpacked on the disk nor held in memory.

Labels are read at once, which takes no image. A row group that is needed is copied as an Arrow file, see
`cache/blocks.py`, and its images are read from there one by one.
"""

import bisect
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..cache.blocks import BlockFolder, Blocks
from .opener import FileOpener

ROWS = 64  # that are copied at a time


class RowGroup(NamedTuple):
    """A row group of a file."""

    file: str
    number: int
    rows: int
    size: int  # bytes, as stored


class BlockTable:
    """Rows of Parquet files, of which only some columns are in memory."""

    def __init__(
        self,
        groups: Sequence[RowGroup],
        columns: Sequence[str],
        in_memory: Any,
        opener: FileOpener,
        at_once: int,
    ) -> None:
        self.in_memory, self.columns = in_memory, columns  # `in_memory` is an Arrow table
        self.fetcher = Fetcher(groups, columns, opener)
        numbers = torch.arange(len(groups)).repeat_interleave(torch.tensor([group.rows for group in groups]))
        self.blocks = Blocks(numbers, BlockFolder(self.fetcher, at_once))

    def __len__(self) -> int:
        return len(self.blocks.numbers)

    def column(self, name: str) -> Any:
        return BlockColumn(self, name) if name in self.columns else self.in_memory.column(name)


class BlockColumn:
    """A column of images or masks; an item is an Arrow scalar, as of a column in memory."""

    null_count = 0  # unknown: it takes reading them

    def __init__(self, table: BlockTable, name: str) -> None:
        self.blocks, self.groups, self.name = table.blocks, table.fetcher.groups, name
        self.ends = list(itertools.accumulate(group.rows for group in self.groups))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, i: int) -> Any:
        number = bisect.bisect_right(self.ends, i)
        row = i - self.ends[number] + self.groups[number].rows
        return self.blocks.folder.read(number, lambda path: _read_row(path, self.name, row))

    def size(self, i: int) -> int:
        """The mean size of the images of a row group, in bytes: their own takes reading them."""
        group = self.groups[bisect.bisect_right(self.ends, i)]
        return group.size // max(group.rows, 1)


class Fetcher:
    """Copies the images of a row group."""

    def __init__(self, groups: Sequence[RowGroup], columns: Sequence[str], opener: FileOpener) -> None:
        self.groups, self.columns, self.opener = list(groups), list(columns), opener

    def __call__(self, number: int, path: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        group = self.groups[number]
        with self.opener.open(group.file) as stream:
            file = pyarrow.parquet.ParquetFile(stream)
            if group not in list_row_groups(group.file, file.metadata):
                raise ValueError(f"{group.file} has changed since the run began; start again")
            batches = file.iter_batches(ROWS, row_groups=[group.number], columns=self.columns)
            first = next(batches)
            with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_file(sink, first.schema) as writer:
                for batch in itertools.chain([first], batches):
                    writer.write_batch(batch)


def list_row_groups(file: str, metadata: Any) -> list[RowGroup]:
    """The row groups of a file that hold rows."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return [
        RowGroup(file, number, group.num_rows, group.total_byte_size)
        for number, group in enumerate(groups)
        if group.num_rows
    ]


def _read_row(path: Path, column: str, row: int) -> Any:
    import pyarrow

    return pyarrow.ipc.open_file(pyarrow.memory_map(str(path))).read_all().column(column)[row]
