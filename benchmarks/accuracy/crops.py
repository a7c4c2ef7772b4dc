"""Makes a small classification set of CamVid: crops of 64 pixels, labeled by the class that covers most of them.

    python benchmarks/accuracy/crops.py /my/camvid /my/crops

reads `train-*.parquet` and `validation-*.parquet`, as runs on CamVid do, and writes PNG files to
`/my/crops/train/CLASS` and `/my/crops/test/CLASS`, in a minute. The crops of a photograph lie side by side. One is
taken where a single class covers more than half of it. A class is taken where there are `EACH` crops of it to learn
from, which are drawn with a fixed seed. All such crops of the other photographs are for the test.
"""

import argparse
import random
import sys
from collections import defaultdict
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from report import run_main, tell

CLASSES = (  # by the values of the masks; 11 is void
    *("Sky", "Building", "Pole", "Road", "Pavement", "Tree"),
    *("SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist"),
)
SIZE, EACH = 64, 60  # pixels; training crops of a class


class Crop(NamedTuple):
    name: str  # of its file, by photograph and place
    label: str
    image: Image.Image


def find_crops(data: Path, split: str) -> Iterator[Crop]:
    """The crops of a split that are mostly of one class."""
    files = sorted(data.glob(f"{split}-*.parquet"))
    if not files:
        raise ValueError(f"{data} holds no {split}-*.parquet; give the folder of CamVid in the layout of the Hub")
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    for number, row in enumerate(rows):
        image, mask = (Image.open(BytesIO(row[column]["bytes"])) for column in ("image", "label"))
        for top in range(0, image.height - SIZE + 1, SIZE):
            for left in range(0, image.width - SIZE + 1, SIZE):
                box = (left, top, left + SIZE, top + SIZE)
                pixels = np.bincount(np.asarray(mask.crop(box)).ravel(), minlength=len(CLASSES) + 1)[: len(CLASSES)]
                if pixels.max() > SIZE * SIZE / 2:
                    yield Crop(f"{number:03}-{top:03}-{left:03}.png", CLASSES[pixels.argmax()], image.crop(box))


def write_crops(data: Path, out: Path) -> None:
    if out.exists():
        raise ValueError(f"{out} exists already; name another folder")
    by_class: dict[str, list[Crop]] = defaultdict(list)
    for crop in find_crops(data, "train"):
        by_class[crop.label].append(crop)
    draw = random.Random(0)
    train = [
        crop
        for label in CLASSES
        if len(by_class[label]) >= EACH
        for crop in sorted(draw.sample(by_class[label], EACH), key=lambda crop: crop.name)
    ]
    labels = {crop.label for crop in train}
    splits = {"train": train, "test": [crop for crop in find_crops(data, "validation") if crop.label in labels]}
    for split, crops in splits.items():
        for crop in crops:
            folder = out / split / crop.label
            folder.mkdir(parents=True, exist_ok=True)
            crop.image.save(folder / crop.name)
        tell(f"{out / split}: {len(crops)} crops of {len(labels)} classes")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("data", type=Path, help="the folder of CamVid's Parquet files")
    parser.add_argument("out", type=Path, help="the folder to write, a new one")
    options = parser.parse_args()
    write_crops(options.data, options.out)


if __name__ == "__main__":
    run_main(main)
