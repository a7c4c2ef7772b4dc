"""How the output of a submodule lies in memory, told from its shape: (b, c, h, w), (b, h, w, c) or tokens (b, n, c)."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from jaxtyping import Shaped
from torch import Tensor

Size = tuple[int, int]  # (height, width)
MAX_PREFIX_TOKENS = 16  # class, distillation and register tokens before the grid of image tokens


class Layout(NamedTuple):
    """The order of the axes; for tokens also how many lead the grid, and the grid."""

    axes: Literal["bchw", "bhwc", "bnc"]
    prefix: int = 0
    grid: Size = (0, 0)

    def to_map(self, output: Shaped[Tensor, "b ..."]) -> Shaped[Tensor, "b c h w"]:
        """`output` as (b, c, h, w), without its prefix tokens; a view where that is possible."""
        if self.axes == "bchw":
            return output
        if self.axes == "bnc":
            output = output[:, self.prefix :].unflatten(1, self.grid)
        return output.permute(0, 3, 1, 2)

    def from_map(self, feature: Shaped[Tensor, "b c h w"]) -> Shaped[Tensor, "b ..."]:
        """The reverse of `to_map`, for an output without prefix tokens."""
        if self.axes == "bchw":
            return feature
        feature = feature.permute(0, 2, 3, 1)
        return feature.flatten(1, 2) if self.axes == "bnc" else feature

    def size(self, shape: Sequence[int]) -> Size:
        """Height and width of the map that an output of this shape holds."""
        if self.axes == "bnc":
            return self.grid
        first = 1 if self.axes == "bhwc" else 2
        return shape[first], shape[first + 1]

    def channels(self, shape: Sequence[int]) -> int:
        """Channels of the map that an output of this shape holds."""
        return shape[1 if self.axes == "bchw" else -1]


def layouts(
    shapes: Mapping[str, Sequence[int]], image_size: Size, num_prefix_tokens: int | None = None
) -> dict[str, Layout]:
    """The layout of every output that holds a map of the image, by submodule name, in the order given.

    `shapes` are those of one forward pass, in running order. A 4-d output is (b, c, h, w) unless only the other
    reading has the image's aspect ratio; where both have it, as (b, 96, 96, 96), the siblings of the module decide.

    >>> found = layouts({"conv": (2, 8, 4, 6), "block": (2, 25, 16), "norm": (2, 4, 6, 32), "fc": (2, 10)}, (64, 96))
    >>> found["block"], found["norm"].axes, "fc" in found
    (Layout(axes='bnc', prefix=1, grid=(4, 6)), 'bhwc', False)
    """
    readings = {name: _readings(shape, image_size) for name, shape in shapes.items() if len(shape) == 4}
    found: dict[str, Layout] = {}
    seen: dict[Size, None] = {}  # grids of the 4-d maps so far: tokens mostly lie on the last of them
    for name, shape in shapes.items():
        if len(shape) == 4:
            found[name] = layout = Layout(_settled(name, readings))
            seen = {layout.size(shape): None} | seen
        elif len(shape) == 3 and (layout := _tokens(shape[1], image_size, seen, num_prefix_tokens)):
            found[name] = layout
    return found


def _readings(shape: Sequence[int], image_size: Size) -> list[Literal["bchw", "bhwc"]]:
    """The orders of the axes in which `shape` has the image's aspect ratio."""
    return [axes for axes in ("bchw", "bhwc") if _fits(Layout(axes).size(shape), image_size)]


def _fits(size: Size, image_size: Size) -> bool:
    """Whether one stride takes the image to `size`, each side rounded up or down.

    >>> _fits((12, 15), (93, 121)), _fits((15, 12), (93, 121))
    (True, False)
    """
    smallest = max(length / (side + 1) for side, length in zip(size, image_size, strict=True))
    largest = min(length / (side - 1) if side > 1 else length for side, length in zip(size, image_size, strict=True))
    return smallest < largest


def _settled(name: str, readings: Mapping[str, list]) -> Literal["bchw", "bhwc"]:
    if len(readings[name]) == 1:
        return readings[name][0]
    if not readings[name]:  # convolutions without padding change the aspect ratio
        return "bchw"
    parent = name.rpartition(".")[0]
    votes = Counter(r[0] for n, r in readings.items() if len(r) == 1 and n.rpartition(".")[0] == parent)
    return max(votes, key=votes.__getitem__, default="bchw")


def _tokens(count: int, image_size: Size, seen: Iterable[Size], num_prefix_tokens: int | None) -> Layout | None:
    """The fewest prefix tokens after which a grid is left: one that a 4-d map had, else one of square patches."""
    prefixes = [*([] if num_prefix_tokens is None else [num_prefix_tokens]), *range(MAX_PREFIX_TOKENS + 1)]
    for grids in (list(seen), list(_patch_grids(image_size))):
        for prefix in prefixes:
            for grid in grids:
                if grid != (1, 1) and count - prefix == grid[0] * grid[1]:
                    return Layout("bnc", prefix, grid)
    return None


def _patch_grids(image_size: Size) -> Iterator[Size]:
    """Grids of square patches that tile the image, the rest at the border cut off or filled up."""
    height, width = image_size
    for patch in range(1, min(image_size)):
        yield height // patch, width // patch
        yield -(-height // patch), -(-width // patch)
