"""Makes two small sets of images with masks on which nothing was chosen, to hold the defaults against.

    python benchmarks/accuracy/masks.py scenes /my/other-scenes
    python benchmarks/accuracy/masks.py streets /my/other-streets --camvid /my/camvid

`scenes` draws smaller scenes than the built-in ones, of other digits: those to learn from and those of the test
come from the built-in scenes' test and validation digits. `streets` exchanges the two splits of CamVid, so that 101
photographs are learned from and 367 are for the test. Each takes a few seconds.
"""

import argparse
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from report import run_main, tell
from selfdistill.data.datasets.scenes import CLASSES, Layout, RawNumbers, draw_scene, load_digits_of_split

SCENES = Layout(48, digits=(1, 3), sides=(16, 28))
DIGITS = {"train": "test", "val": "val"}  # whose digits a split shows
COUNT = 400  # scenes of each split
FIRST = 10_000  # number of the first scene, above those of the built-in ones
EXCHANGED = {"train": "validation", "validation": "train"}


def write_scenes(out: Path) -> None:
    for number, (split, shown) in enumerate(DIGITS.items()):
        digits, labels = load_digits_of_split(shown)
        folders = [out / split / name for name in ("images", "masks")]
        for folder in folders:
            folder.mkdir(parents=True)
        for i in range(COUNT):
            scene = draw_scene(digits, labels, RawNumbers(number, FIRST + i), SCENES)
            for folder, image in zip(folders, scene, strict=True):
                image.save(folder / f"{i:03}.png")
        tell(f"{out / split}: {COUNT} scenes")
    (out / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES), encoding="utf-8")


def exchange_splits(data: Path, out: Path) -> None:
    found = {split: sorted(data.glob(f"{EXCHANGED[split]}-*.parquet")) for split in EXCHANGED}
    if not all(found.values()):
        raise ValueError(f"{data} lacks train-*.parquet or validation-*.parquet, CamVid in the layout of the Hub")
    out.mkdir(parents=True)
    for split, files in found.items():
        for file in files:
            shutil.copyfile(file, out / f"{split}{file.name.removeprefix(EXCHANGED[split])}")
        tell(f"{out}: {split} is what was {EXCHANGED[split]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("set", choices=["scenes", "streets"])
    parser.add_argument("out", type=Path, help="the folder to write, a new one")
    parser.add_argument("--camvid", type=Path, help="the folder of CamVid's Parquet files, for `streets`")
    options = parser.parse_args()
    if options.out.exists():
        raise ValueError(f"{options.out} exists already; name another folder")
    if options.set == "scenes":
        write_scenes(options.out)
    elif options.camvid is None:
        raise ValueError("streets needs --camvid, a folder with CamVid as Parquet files")
    else:
        exchange_splits(options.camvid, options.out)


if __name__ == "__main__":
    run_main(main)
