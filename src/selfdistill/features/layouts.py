"""The order of the axes of an output, inferred from its shape: (b, c, h, w), (b, h, w, c) or tokens (b, n, c)."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from jaxtyping import Shaped
from torch import Tensor

Size = tuple[int, int]  # (height, width)
Axes = Literal["bchw", "bhwc", "bnc"]
MAX_PREFIX_TOKENS = 16  # class, distillation and register tokens before the grid of image tokens


class Layout(NamedTuple):
    """The order of the axes. For tokens also how many precede the grid of image tokens, and the grid."""

    axes: Axes
    prefix: int = 0
    grid: Size = (0, 0)

    def to_map(self, output: Shaped[Tensor, "b ..."]) -> Shaped[Tensor, "b c h w"]:
        """`output` as (b, c, h, w), without its prefix tokens; a view if possible."""
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
        """Height and width of the map in an output of this shape."""
        if self.axes == "bnc":
            return self.grid
        first = 1 if self.axes == "bhwc" else 2
        return shape[first], shape[first + 1]

    def channels(self, shape: Sequence[int]) -> int:
        """Channels of the map in an output of this shape."""
        return shape[1 if self.axes == "bchw" else -1]


def find_layouts(
    shapes: Mapping[str, Sequence[int]], image_size: Size, num_prefix_tokens: int | None = None
) -> dict[str, Layout]:
    """The layout of every output that holds a map of the image, by submodule name, in the order given.

    `shapes` are those of one forward pass, in running order. A 4-d output is (b, c, h, w) unless only the other order
    has the image's aspect ratio. Where both orders have it, as in (b, 96, 96, 96), the siblings of the module decide.

    >>> shapes = {"conv": (2, 8, 4, 6), "block": (2, 25, 16), "norm": (2, 4, 6, 32), "fc": (2, 10)}
    >>> layouts = find_layouts(shapes, (64, 96))
    >>> layouts["block"], layouts["norm"].axes, "fc" in layouts
    (Layout(axes='bnc', prefix=1, grid=(4, 6)), 'bhwc', False)
    """
    possible = {name: _possible_axes(shape, image_size) for name, shape in shapes.items() if len(shape) == 4}
    layouts: dict[str, Layout] = {}
    sizes: dict[Size, None] = {}  # of the 4-d maps so far, the last first: tokens mostly have the size of the last
    for name, shape in shapes.items():
        if len(shape) == 4:
            layouts[name] = layout = Layout(_choose_axes(name, possible))
            sizes = {layout.size(shape): None} | sizes
        elif len(shape) == 3 and (layout := _find_grid(shape[1], image_size, sizes, num_prefix_tokens)):
            layouts[name] = layout
    return layouts


def _possible_axes(shape: Sequence[int], image_size: Size) -> list[Axes]:
    """The orders of the axes in which `shape` has the image's aspect ratio."""
    return [axes for axes in ("bchw", "bhwc") if _has_aspect_ratio(Layout(axes).size(shape), image_size)]


def _has_aspect_ratio(size: Size, image_size: Size) -> bool:
    """Whether one stride takes the image to `size`, each side rounded up or down.

    >>> _has_aspect_ratio((12, 15), (93, 121)), _has_aspect_ratio((15, 12), (93, 121))
    (True, False)
    """
    smallest = max(length / (side + 1) for side, length in zip(size, image_size, strict=True))
    largest = min(length / (side - 1) if side > 1 else length for side, length in zip(size, image_size, strict=True))
    return smallest < largest


def _choose_axes(name: str, possible: Mapping[str, list[Axes]]) -> Axes:
    """The order of the axes of a 4-d output; where its shape allows both, the one that most of its siblings have."""
    if len(possible[name]) == 1:
        return possible[name][0]
    if not possible[name]:  # convolutions without padding change the aspect ratio
        return "bchw"
    parent = name.rpartition(".")[0]
    votes = Counter(axes[0] for n, axes in possible.items() if len(axes) == 1 and n.rpartition(".")[0] == parent)
    return max(votes, key=votes.__getitem__, default="bchw")


def _find_grid(count: int, image_size: Size, sizes: Iterable[Size], num_prefix_tokens: int | None) -> Layout | None:
    """The layout of `count` tokens with the fewest prefix tokens: a grid of one of `sizes`, else of square patches."""
    prefixes = [*([] if num_prefix_tokens is None else [num_prefix_tokens]), *range(MAX_PREFIX_TOKENS + 1)]
    for grids in (list(sizes), list(_patch_grids(image_size))):
        for prefix in prefixes:
            for grid in grids:
                if grid != (1, 1) and count - prefix == grid[0] * grid[1]:
                    return Layout("bnc", prefix, grid)
    return None


def _patch_grids(image_size: Size) -> Iterator[Size]:
    """Grids of square patches that tile the image; the rest at the border is cropped or padded."""
    height, width = image_size
    for patch in range(1, min(image_size)):
        yield height // patch, width // patch
        yield -(-height // patch), -(-width // patch)
