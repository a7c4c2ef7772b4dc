"""The meaning of the values in masks: their names, their colors, and the classes."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from ...errors import did_you_mean
from .mask_values import BORDER, Color

IGNORE_INDEX = -100  # class index of ignored pixels, as in `Task` and in torch's cross-entropy
IGNORED_NAMES = ("void", "ignore", "unlabeled", "unlabelled")
STORED = (-(2**15), 2**16 - 1)  # the smallest and the largest value that can be named


@dataclass(frozen=True)
class LabelMap:
    """The meaning of mask values.

    A source gives `names`, and perhaps `palette` and `ignored`; `resolve` decides the rest.
    """

    names: dict[int, str]  # value -> name, including ignored values that have one
    palette: dict[int, Color] = field(default_factory=dict)  # value -> color, for masks in color
    ignored: frozenset[int] | None = None  # values to ignore; None if the source does not say
    classes: tuple[str, ...] = ()  # class names, in the order of their indices

    @cached_property
    def index(self) -> dict[int, int]:
        """Value -> class index, and IGNORE_INDEX for ignored values. Other values have no meaning."""
        ignored = self.ignored or frozenset()
        index = {name: k for k, name in enumerate(self.classes)}
        named = {v: index[name] for v, name in sorted(self.names.items()) if v not in ignored and name in index}
        return named | dict.fromkeys(sorted(ignored), IGNORE_INDEX)

    @property
    def values(self) -> tuple[int, ...]:
        """The value of each class; -1 for a class that only another source's masks have."""
        stored = {index: value for value, index in self.index.items()}
        return tuple(stored.get(k, -1) for k in range(len(self.classes)))

    def resolve(self, source: str, void: Sequence[int | str] | None) -> "LabelMap":
        """The map with `ignored` and `classes` decided; `void` is the setting `data.void`.

        Classes are the named values that are not ignored, in the order of the values. Raises `ValueError` for fewer
        than two classes, and for two classes with one name.
        """
        ignored = self.find_ignored(source, void)
        classes = tuple(name for value, name in sorted(self.names.items()) if value not in ignored)
        for name in classes:
            if classes.count(name) > 1:
                raise ValueError(f"{source} has two classes called {name!r}; every class needs a name of its own")
        if len(classes) < 2:
            count = f"only one class, {classes[0]!r}" if classes else "no class"
            raise ValueError(f"the masks of {source} have {count}; a network needs at least two to tell apart")
        return replace(self, ignored=frozenset(ignored), classes=classes)

    def renumber(self, classes: tuple[str, ...], indices: Sequence[int]) -> "LabelMap":
        """The map with class `k` renumbered as `indices[k]` of `classes`; with -1 its values lose their meaning."""
        renamed = {v: classes[indices[k]] for v, k in self.index.items() if k != IGNORE_INDEX and indices[k] >= 0}
        return replace(self, names={**self.names, **renamed}, classes=classes)

    def settings(self) -> dict[str, list]:
        """`data.classes` and `data.void` of a recipe that gives the values the same meaning."""
        classes = [self.names.get(value, "void") for value in range(max(self.names) + 1)]
        return {"classes": classes, "void": sorted(self.ignored or ())}

    def refuse(self, value: int) -> ValueError:
        """The error for a value without a meaning, or of a class that is not among `classes`."""
        if value in self.names:
            return ValueError(
                f"holds the class {self.names[value]!r} (value {value}), which is none of the"
                f" {len(self.classes)} to tell apart{did_you_mean(self.names[value], self.classes)}"
            )
        known = _format_ranges([other for other, index in self.index.items() if index != IGNORE_INDEX])
        void = _format_ranges(sorted(self.ignored or ())) or "none"
        return ValueError(
            f"holds the value {value}, which is neither a class (values {known}) nor void ({void});"
            " name it in data.classes or data.void, or the masks' colors or gray levels in data.palette"
        )

    def find_ignored(self, source: str, void: Sequence[int | str] | None) -> set[int]:
        """The values to ignore; `void` is the setting `data.void`."""
        if void is not None:
            return {value for item in void for value in self._find_values(source, item)}
        if self.ignored is not None:
            return set(self.ignored)
        named = {value for value, name in self.names.items() if name.lower() in IGNORED_NAMES}
        return named | ({BORDER} - self.names.keys())

    def _find_values(self, source: str, item: int | str) -> list[int]:
        """The values that one item of `data.void` means: a value, or the name of a class."""
        if str(item).removeprefix("-").isdecimal() and not STORED[0] <= int(item) <= STORED[1]:
            raise ValueError(f"data.void={item} is no value of a mask; these are from {STORED[0]} to {STORED[1]}")
        if isinstance(item, int):
            return [item]
        values = [value for value, name in self.names.items() if name.lower() == item.lower()]
        if not values and not item.isdecimal():
            raise ValueError(f"data.void={item} is no class of {source}{did_you_mean(item, self.names.values())}")
        return values or [int(item)]


def _format_ranges(numbers: Sequence[int]) -> str:
    """Formats numbers as ranges.

    >>> _format_ranges([0, 1, 2, 5, 255])
    '0 to 2, 5, 255'
    """
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
