"""The recipes, and what the comments at their heads say."""

import functools
import re
from pathlib import Path

from selfdistill.config.read import read

ROOT = Path(__file__).parents[2]
ALL = sorted(ROOT.glob("recipes/**/*.yaml"))
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


def header(path: Path) -> dict[str, str]:
    """The labelled paragraphs of the comment that a recipe begins with."""
    comment, _, _ = path.read_text(encoding="utf-8").partition("\n\n")
    comment = re.sub("^# ?", "", comment, flags=re.MULTILINE)
    found = re.findall(r"^(\w+): (.*(?:\n  .*)*)", comment, re.MULTILINE)
    return {label: " ".join(text.split()) for label, text in found}
