"""Writers of images, class folders and Parquet files."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.tasks import CLASSIFICATION
from selfdistill.config.recipe import DataPart
from selfdistill.data import LabeledDataset, Splits, open_splits


def write_image(path: Path, seed: int = 0, *, size: tuple[int, int] = (8, 6), mode: str = "RGB") -> Path:
    """A small noise image of `size` (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def write_classes(folder: Path, counts: dict[str, int], suffix: str = ".png", **kind) -> Path:
    """A folder of class folders with so many images each."""
    for label, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            write_image(folder / name / f"{number}{suffix}", seed=100 * label + number, **kind)
    return folder


def opened(source: Path | str, **settings) -> Splits:
    return open_splits(DataPart(source=str(source), **settings), CLASSIFICATION)


def encoded(path: Path) -> dict:
    return {"bytes": path.read_bytes(), "path": path.name}


def write_parquet(path: Path, images: list, labels: list, features=None) -> Path:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    if features is None:
        pyarrow.parquet.write_table(pyarrow.table({"image": images, "label": labels}), path)
    else:
        datasets = pytest.importorskip("datasets")
        datasets.Dataset.from_dict({"image": images, "label": labels}, features=features).to_parquet(path)
    return path


def damage(path: Path, kind: str) -> None:
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("hello")
    elif kind == "scrambled":
        whole = bytearray(path.read_bytes())
        whole[40:] = bytes(len(whole) - 40)
        path.write_bytes(whole)


def list_names(rows: LabeledDataset | None) -> list[str]:
    assert rows is not None
    return [
        os.path.basename(os.path.dirname(rows.name(i))) + "/" + os.path.basename(rows.name(i)) for i in range(len(rows))
    ]


def write_outside(path: Path, images: list, labels: list, features) -> Path:
    """A Parquet file with labels that its own class names do not cover, which `datasets` would not write."""
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"image": images, "label": labels}).cast(features.arrow_schema)
    pyarrow.parquet.write_table(table, path)
    return path


def write_table(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
