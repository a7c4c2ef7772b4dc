"""Measures how fast photographs become batches: here, in timm and in torchvision, which take turns.

    python benchmarks/loaders.py                             # writes JPEG files of 500x375 pixels and reads them
    python benchmarks/loaders.py --data /my/photographs --workers 0,2 --turns 9
    python benchmarks/loaders.py --large --turns 3           # of 4000x3000 pixels, with data.draft besides

All three decode with Pillow, cut out a random rectangle (8 to 100 % of the area), resize it to 224x224, bilinear,
mirror half of the images, and normalize: what `data.augment=auto` does with photographs. A turn is one epoch of one of
them, with its loader's worker processes. Processor time is that of this process and its workers.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from harness import at_least
from report import run_main, tell
from selfdistill.build import build
from selfdistill.config.read import read
from selfdistill.data import EpochIndex, train_loader
from selfdistill.report.markdown import markdown_table
from selfdistill.training.memory import keep_freed_memory
from throughput import PHOTOGRAPHS, read_cpu_seconds, write_photographs

SIZE, BATCH = 224, 64
LARGE, LARGE_COUNTS = (4000, 3000), {"train": 64, "val": 8}  # as phones take them, about 3 MB each
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Epoch = Callable[[int], Iterable[Any]]  # takes the number of an epoch, gives its batches
Open = Callable[[str, int], Epoch]  # takes a folder and the number of worker processes


def open_selfdistill(folder: str, workers: int, *more: str) -> Epoch:
    words = ["method=baseline", "student=null_model:build_mean_color", f"batch_size={BATCH}", "machine.cache=none"]
    settings = [f"data={folder}", f"data.image_size={SIZE}", "epochs=1"]
    dataset = build(read(None, [*words, *settings, *more])).train_set
    count = len(dataset) // BATCH * BATCH

    def load(epoch: int) -> Iterable[Any]:
        order = torch.randperm(len(dataset))[:count].view(-1, BATCH).tolist()
        steps = [[[EpochIndex(epoch, i) for i in batch]] for batch in order]
        return train_loader(dataset, steps, workers=workers, channels_last=True)

    return load


def open_timm(folder: str, workers: int) -> Epoch:
    from timm.data import ImageDataset, create_loader

    loader = create_loader(
        ImageDataset(os.path.join(folder, "train")),
        (3, SIZE, SIZE),
        BATCH,
        is_training=True,
        color_jitter=None,
        interpolation="bilinear",
        mean=MEAN,
        std=STD,
        num_workers=workers,
        persistent_workers=False,
        device=torch.device("cpu"),
        pin_memory=False,
    )
    return lambda epoch: loader


def open_torchvision(folder: str, workers: int) -> Epoch:
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    steps = [v2.RandomResizedCrop(SIZE), v2.RandomHorizontalFlip(), v2.PILToTensor()]
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    dataset = ImageFolder(os.path.join(folder, "train"), v2.Compose(steps))
    loader = torch.utils.data.DataLoader(dataset, BATCH, shuffle=True, drop_last=True, num_workers=workers)
    return lambda epoch: loader


def open_drafts(folder: str, workers: int) -> Epoch:
    return open_selfdistill(folder, workers, "data.draft=true")


LOADERS = {"selfdistill": open_selfdistill, "timm": open_timm, "torchvision": open_torchvision}


def main(words: list[str] | None = None) -> list[list[str]]:
    """Prints the table of the command line, and returns its rows."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", help="a folder with train and val in it; default: photographs that are written")
    parser.add_argument("--large", action="store_true", help="write photographs of 12 megapixels, and draft them too")
    parser.add_argument("--workers", type=lambda text: [int(word) for word in text.split(",")], default=[0, 2])
    parser.add_argument("--turns", type=at_least(1), default=7, help="epochs of each loader that are counted")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    keep_freed_memory()  # as `fit` does; it helps all three
    with tempfile.TemporaryDirectory() as written:
        folder = options.data or write_data(Path(written), options.large)
        loaders = {**LOADERS, "selfdistill, data.draft=true": open_drafts} if options.large else LOADERS
        rows = [row for workers in options.workers for row in measure(loaders, folder, workers, options.turns)]
    print(f"Loading photographs, {SIZE} pixels, batches of {BATCH}, {os.cpu_count()} processors, ", end="")
    print(f"Pillow {Image.__version__}\n")
    print(markdown_table(["loader", "workers", "images / s of processor time", "images / s"], rows))
    return rows


def write_data(folder: Path, large: bool) -> str:
    counts, size, noise = (LARGE_COUNTS, LARGE, 6.0) if large else (PHOTOGRAPHS, (500, 375), 12.0)
    write_photographs(folder, counts, size, noise)
    tell(f"wrote {counts['train']} JPEG files of {size[0]}x{size[1]} pixels")
    return str(folder)


def measure(loaders: Mapping[str, Open], folder: str, workers: int, turns: int) -> list[list[str]]:
    """A row for each loader: medians over its turns."""
    epochs = {name: create(folder, workers) for name, create in loaders.items()}
    paces: dict[str, list[tuple[float, float]]] = {name: [] for name in epochs}
    for turn in range(turns + 1):
        for name, load in epochs.items():
            cpu, start, images = read_cpu_seconds(), time.perf_counter(), 0
            for batch in load(turn):
                images += len(batch[0])
            seconds = (read_cpu_seconds() - cpu, time.perf_counter() - start)
            if turn > 0:  # the first epoch loads libraries too
                paces[name].append((images / seconds[0], images / seconds[1]))
    medians = {name: [statistics.median(pace) for pace in zip(*each, strict=True)] for name, each in paces.items()}
    return [[name, str(workers), f"{busy:,.0f}", f"{wall:,.0f}"] for name, (busy, wall) in medians.items()]


if __name__ == "__main__":
    run_main(main)
