"""Names of several files: `train-{000..099}.tar` or `train-*.parquet`, and the splits that they mean."""

import glob
import os
import re
from collections.abc import Callable, Sequence
from itertools import pairwise

RANGE = re.compile(r"(\d+)\.\.(\d+)")


def is_pattern(name: str) -> bool:
    """Whether a name stands for several files."""
    return "*" in name or expand_braces(name) != [name]


def list_files(pattern: str) -> list[str]:
    """The local files that a pattern stands for; those that braces name need not exist."""
    names = expand_braces(pattern)
    return [path for name in names for path in (sorted(glob.glob(name)) if "*" in name else [name])]


def expand_braces(pattern: str) -> list[str]:
    """The names that a pattern stands for; braces may hold others.

    >>> expand_braces("{a,b-{08..10}}.tar")
    ['a.tar', 'b-08.tar', 'b-09.tar', 'b-10.tar']
    """
    start = pattern.find("{")
    commas, end = _find_commas(pattern, start)
    if end is None:
        return [pattern]
    numbers = RANGE.fullmatch(pattern[start + 1 : end])
    if numbers is None and not commas:
        return [pattern[: end + 1] + rest for rest in expand_braces(pattern[end + 1 :])]
    if numbers is not None:
        first, last, width = int(numbers[1]), int(numbers[2]), len(numbers[1])
        choices = [str(number).zfill(width) for number in range(first, last + 1)]
    else:
        texts = [pattern[a + 1 : b] for a, b in pairwise([start, *commas, end])]
        choices = [choice for text in texts for choice in expand_braces(text)]
    return [f"{pattern[:start]}{choice}{rest}" for choice in choices for rest in expand_braces(pattern[end + 1 :])]


def _find_commas(text: str, start: int) -> tuple[list[int], int | None]:
    """The places of the commas between a brace at `start` and the one that closes it, and of that; None without one."""
    depth, commas = 0, []
    for place in range(start, len(text)) if start >= 0 else ():
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return commas, place
        if depth == 1 and text[place] == ",":
            commas.append(place)
    return commas, None


def group_by_split(
    paths: Sequence[str], location: str, find_split: Callable[[str], str], *, usual: str
) -> dict[str, list[str]]:
    """The files of each split, by `find_split` of their names, which gives "" for none; all are "train" without any.

    So are files that are all of one split, unless `location` is a folder. Raises `ValueError` if only some have a
    split; `usual` is a name that would have one.
    """
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(find_split(path), []).append(path)
    if "" in groups and len(groups) > 1:
        file = groups[""][0]
        raise ValueError(f"{file} belongs to no split, as other files of {location} do; call it {usual}")
    if "" in groups or (len(groups) == 1 and not os.path.isdir(location)):
        return {"train": list(paths)}
    return groups
