"""Small data sets in shards and row groups, and a function that opens files which are not where their names say."""

import os
from pathlib import Path
from typing import BinaryIO

from helpers.images import write_image
from helpers.shards import encode, write_labeled

REMOTE = "remote://bucket/"
ROOT, LOG = (
    "SELFDISTILL_TEST_ROOT",
    "SELFDISTILL_TEST_LOG",
)  # the folder behind REMOTE; a file that names what was opened


def open_remote(name: str) -> BinaryIO:
    with open(os.environ[LOG], "a") as log:
        log.write(f"{name}\n")
    return open(os.path.join(os.environ[ROOT], name.removeprefix(REMOTE)), "rb")


def open_nothing(name: str) -> None:
    return None


def write_shards(folder: Path, count: int = 6, images: int = 8) -> Path:
    """Shards of mixed classes `train-000.tar` and so on, with one more for validation."""
    for number in range(count):
        write_labeled(folder / f"train-{number:03d}.tar", [0, 1] * (images // 2), start=images * number, size=(8, 8))
    write_labeled(folder / "val-000.tar", [0, 1] * 2, start=images * count, size=(8, 8))
    return folder


def write_row_groups(folder: Path, files: int = 3, images: int = 16, rows: int = 8) -> Path:
    """The images of `write_shards` in Parquet files of row groups of `rows` images."""
    import pyarrow
    import pyarrow.parquet

    folder.mkdir(parents=True, exist_ok=True)
    for name, start, count in [
        *((f"train-{k:03d}", images * k, images) for k in range(files)),
        ("validation-000", images * files, 4),
    ]:
        column = [{"bytes": encode(k, size=(8, 8)), "path": None} for k in range(start, start + count)]
        table = pyarrow.table({"image": column, "label": [k % 2 for k in range(start, start + count)]})
        pyarrow.parquet.write_table(table, folder / f"{name}.parquet", row_group_size=rows)
    return folder


def write_loose(folder: Path, count: int = 48) -> Path:
    """The training images of `write_shards` as files and a table, and its validation images."""
    lines = ["path,label,split"]
    for number in range(count + 4):
        write_image(folder / f"{number}.png", number, size=(8, 8))
        lines.append(f"{number}.png,{number % 2},{'train' if number < count else 'val'}")
    (folder / "table.csv").write_text("\n".join(lines))
    return folder / "table.csv"
