"""Which tensor of a file belongs to which of a network, by names that differ in their prefixes, or by order."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import Tensor

AVERAGES = ("ema", "teacher", "average", "avg")  # in the name of a state dict: taken before the network it averages
LEAST = 0.25  # of the tensors of either side that must have one name and one shape
PARTS = ("", "encoder.", "backbone.")  # of a network, which a file may hold
COUNTERS = "num_batches_tracked"  # which older files lack


class Match(NamedTuple):
    """The tensors of a file by the network's names, as far as these are found."""

    label: str  # the keys that the state dict is nested under
    tensors: dict[str, Tensor]
    left: list[str]  # the file's names that the network does not have
    removed: str = ""  # prefix of the file's names
    added: str = ""  # prefix of the network's names
    by_order: bool = False


def match_tensors(stored: Mapping[str, Mapping[str, Tensor]], network: Mapping[str, Tensor]) -> Match | None:
    """The state dict of a file that has most tensors of a network; None if no name, and no order of shapes, agrees.

    Of several that have as many the average of weights is taken, and the network itself before one inside of another.
    """
    wanted = {name: value for name, value in network.items() if not name.endswith(COUNTERS)}
    best: tuple[tuple[int, bool, int], Match] | None = None
    for label, tensors in stored.items():
        named = {name: value for name, value in tensors.items() if not name.endswith(COUNTERS)}
        for (removed, added), votes in _count_prefixes(named, wanted).items():
            if votes < LEAST * min(len(wanted), len(named)):
                continue
            is_average = any(word in f"{label}.{removed}".lower() for word in AVERAGES)
            rank = (votes, is_average, -len(removed) - len(added))
            if best is None or rank > best[0]:
                best = rank, _match_names(label, tensors, network, removed, added)
    if best is not None:
        return best[1]
    orders = ((label, tensors, part) for label, tensors in stored.items() for part in PARTS)
    return next((match for order in orders if (match := _match_order(*order, network))), None)


def _count_prefixes(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Counter[tuple[str, str]]:
    """For each pair of prefixes, of the file's names and of the network's, how many tensors agree behind them."""
    by_rest: dict[str, list[tuple[str, Tensor]]] = defaultdict(list)
    for name, value in wanted.items():
        for prefix, rest in _split(name):
            by_rest[_normalize(rest)].append((prefix, value))
    votes: Counter[tuple[str, str]] = Counter()
    for name, value in tensors.items():
        for prefix, rest in _split(name):
            for other, expected in by_rest.get(_normalize(rest), ()):
                votes[prefix, other] += value.shape == expected.shape
    return +votes


def _split(name: str) -> Iterator[tuple[str, str]]:
    """A dotted name cut behind each of its dots but the last, and uncut."""
    yield "", name
    dots = [place.end() for place in re.finditer(r"\.", name)]
    yield from ((name[:end], name[end:]) for end in dots[:-1])


def _normalize(name: str) -> str:
    """The name as in a network whose stages are in a list; timm's encoders write `stages_0` for `stages.0`."""
    return re.sub(r"_(\d+)\.", r".\1.", name)


def _match_names(
    label: str, tensors: Mapping[str, Tensor], network: Mapping[str, Tensor], removed: str, added: str
) -> Match:
    names = {_normalize(name.removeprefix(added)): name for name in network if name.startswith(added)}
    found, left = {}, []
    for name, value in tensors.items():
        key = names.get(_normalize(name.removeprefix(removed))) if name.startswith(removed) else None
        if key is None:
            left.append(name)
        else:
            found[key] = value
    return Match(label, found, left, removed, added)


def _match_order(label: str, tensors: Mapping[str, Tensor], part: str, network: Mapping[str, Tensor]) -> Match | None:
    """Pairs tensors by their order, where all but the first and the last layer have one shape and one kind of name.

    `part` is the prefix of the names of the network that are paired. What the file has behind them is left.
    """
    wanted = [(name, value) for name, value in network.items() if name.startswith(part)]
    left = [*tensors][len(wanted) :]
    if len(wanted) < 8 or len(wanted) > len(tensors) or len(left) > len(tensors) / 10:
        return None
    found = dict(zip([name for name, _ in wanted], tensors.values(), strict=False))
    for place, ((name, value), other) in enumerate(zip(wanted, tensors, strict=False)):
        is_free = place == 0 or place >= len(wanted) - 2  # for other channels, or another number of classes
        if name.rpartition(".")[2] != other.rpartition(".")[2] or (value.shape != tensors[other].shape and not is_free):
            return None
    return Match(label, found, left, added=part, by_order=True)
