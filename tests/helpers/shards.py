"""Writers of tar shards."""

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write_shard(path: Path, files: Mapping[str, bytes] | Sequence[tuple[str, bytes]]) -> Path:
    """A tar archive of files, by their names and contents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in files.items() if isinstance(files, Mapping) else files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def encode(seed: int, *, size: tuple[int, int] = (8, 6), kind: str = "PNG") -> bytes:
    """A small noise image of `size` (width, height)."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def encode_mask(values: Sequence[Sequence[int]]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.array(values, dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def write_labeled(path: Path, labels: Sequence[object], start: int = 0, **kind) -> Path:
    """A shard of noise images, numbered from `start`, with their labels in .cls."""
    files = {}
    for number, label in enumerate(labels, start):
        files[f"{number:04d}.png"] = encode(number, **kind)
        files[f"{number:04d}.cls"] = str(label).encode()
    return write_shard(path, files)
