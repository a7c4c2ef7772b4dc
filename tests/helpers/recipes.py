"""The recipes, and the files that they build on."""

import functools
from pathlib import Path

from selfdistill.config.read import read

ROOT = Path(__file__).parents[2]
FILES = sorted(ROOT.glob("recipes/**/*.yaml"))
BASES = [path for path in FILES if path.stem == "base" or path.stem.startswith("base_")]
ALL = [path for path in FILES if path not in BASES]
PAPER = [path for path in ALL if path.parent.name != "quick"]
CLASSES = {
    "cifar100": 100,
    "tiny-imagenet": 200,
    "cub-200": 200,
    "mit67": 67,
    "stanford-dogs": 120,
    "stanford-40": 40,
    "imagenet": 1000,
    "voc": 21,
    "camvid": 11,
    "cityscapes": 19,
    "ade20k": 150,
}
recipe_of = functools.cache(read)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT / "recipes").with_suffix("").as_posix()
