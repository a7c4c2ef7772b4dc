"""Which of a network's outputs are its stages: rules over the outputs of one forward pass, in running order."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

from torch import Tensor, nn

from .layouts import Layout, Size

MAX_LEVELS = 4  # how many are chosen: of a ResNet layer1 to layer4, not the stem
POOLS = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
T = TypeVar("T")


class Output(NamedTuple):
    """What a submodule returned, and the shape of its input."""

    module: nn.Module
    input_shape: Sequence[int]
    value: Tensor
    version: int  # of the value's memory when it was returned

    @property
    def intact(self) -> bool:
        """Whether no later layer has written into the value."""
        return self.value._version == self.version

    def shares_memory(self, other: Tensor) -> bool:
        """Whether the value lies in the memory of another tensor."""
        return find_address(self.value) == find_address(other)

    def has_weights(self) -> bool:
        """Whether the module or one of its submodules has parameters."""
        return any(True for _ in self.module.parameters())


def find_address(value: Tensor) -> int:
    """Where the memory of a tensor begins; views of one tensor share it."""
    return value.untyped_storage().data_ptr()


class FeatureMap(NamedTuple):
    """An output that holds a feature map."""

    name: str
    output: Output
    layout: Layout
    depth: int  # how deeply the module is nested, see `count_nesting`

    @property
    def size(self) -> Size:
        """Height and width."""
        return self.layout.size(self.output.value.shape)

    @property
    def area(self) -> int:
        """How many positions the map has."""
        return self.size[0] * self.size[1]

    @property
    def channels(self) -> int:
        """How many channels the map has."""
        return self.layout.channels(self.output.value.shape)

    def value(self) -> Tensor:
        """The map, (b, c, h, w)."""
        return self.layout.to_map(self.output.value)


def find_stages(
    maps: Sequence[FeatureMap], outputs: Mapping[str, Output], logits: Tensor, image_size: Size
) -> list[FeatureMap]:
    """The last of the least nested maps at each resolution, the deepest four, shallow to deep.

    Of a network with one resolution, it is four evenly spaced blocks. `maps` are those of `outputs` that can be used.
    """
    scores = _find_scores(outputs, logits.shape[1])
    maps = [m for m in _drop_repeats(maps) if m.name not in scores and not m.output.shares_memory(logits)]
    maps = [m for m in maps if _shows_image(m.size, image_size) and m.channels > 1]
    areas = {m.name: m.area for m in maps}
    maps = [m for m in maps if all(areas.get(ancestor, 0) <= m.area for ancestor in _ancestors(m.name))]
    maps = [m for m in maps if not isinstance(m.output.module, POOLS)]
    points = _find_points(maps, outputs)
    maps = [m for m in maps if m.area > 1 or m.name in points]
    levels = _choose_at_each_size(maps)
    if len(levels) == 1:
        return evenly_spaced(_find_repeated_blocks([m for m in maps if m.size == levels[0].size]) or levels)
    return levels[-MAX_LEVELS:]


def find_relu_behind(name: str, outputs: Mapping[str, Output]) -> Output | None:
    """The output of the `nn.ReLU` whose result the submodule `name` returns; None if there is none."""
    if name not in outputs:
        return None
    value = outputs[name].value
    relus = [o for o in outputs.values() if isinstance(o.module, nn.ReLU) and o.value.shape == value.shape]
    return next((output for output in reversed(relus) if output.shares_memory(value)), None)


def count_nesting(outputs: Mapping[str, Output], student: nn.Module) -> dict[str, int]:
    """In how many modules each submodule lies; the network's own children lie in none.

    Lists and plain `nn.Sequential`s do not count, so that `stages.0` ranks with `stem`. A layer of a Sequential that
    runs before its first layer with a weight matrix counts as inside it: the norm before a strided convolution.
    """
    first_matrix: dict[str, int] = {}  # when the first layer with a weight matrix in each module returned
    for i, (name, output) in enumerate(outputs.items()):
        if any(p.ndim > 1 for p in output.module.parameters(recurse=False)):
            for ancestor in (name, *_ancestors(name)):
                first_matrix.setdefault(ancestor, i)
    modules = dict(student.named_modules(remove_duplicate=False))
    lists = {name for name, module in modules.items() if isinstance(module, nn.ModuleList | nn.ModuleDict)}
    plain = {name for name, module in modules.items() if type(module) is nn.Sequential}
    return {
        name: sum(a not in lists and not (a in plain and first_matrix.get(a, i + 1) <= i) for a in _ancestors(name))
        for i, name in enumerate(outputs)
    }


def _ancestors(name: str) -> list[str]:
    """The modules around a submodule.

    >>> _ancestors("layer1.0.conv1")
    ['layer1', 'layer1.0']
    """
    path = name.split(".")
    return [".".join(path[:i]) for i in range(1, len(path))]


def choose_levels(items: Sequence[T], sizes: Sequence[Size]) -> list[T]:
    """Of stages that a network lists itself, the last at each resolution, the deepest four; like `find_stages`.

    >>> choose_levels("stem a b c d e".split(), [(16, 16), (8, 8), (8, 8), (4, 4), (2, 2), (1, 1)])
    ['b', 'c', 'd', 'e']
    >>> choose_levels(range(12), [(4, 4)] * 12)
    [2, 5, 8, 11]
    """
    if len(set(sizes)) == 1:
        return evenly_spaced(items)
    last = {size: i for i, size in enumerate(sizes)}
    return [items[i] for i in sorted(last.values())][-MAX_LEVELS:]


def evenly_spaced(items: Sequence[T]) -> list[T]:
    """Four of the items, or all if there are fewer, the last included."""
    count = min(MAX_LEVELS, len(items))
    return [items[(i + 1) * len(items) // count - 1] for i in range(count)]


def _choose_at_each_size(maps: Sequence[FeatureMap]) -> list[FeatureMap]:
    """At each resolution the last of the least nested maps; maps that grow again, a decoder's, are left out."""
    best: dict[Size, FeatureMap] = {}
    smallest: dict[int, int] = {}  # area so far, by nesting: a small map inside a block says nothing about the block
    for m in maps:
        if any(area < m.area for depth, area in smallest.items() if depth <= m.depth):
            continue
        smallest[m.depth] = min(m.area, smallest.get(m.depth, m.area))
        if m.size not in best or m.depth <= best[m.size].depth:
            best[m.size] = m
    return sorted(best.values(), key=lambda m: -m.area)


def _find_repeated_blocks(maps: Sequence[FeatureMap]) -> list[FeatureMap]:
    """The siblings of one class that hold the most weights, all counted as the smallest: the blocks of a ViT."""
    families = defaultdict(list)
    for m in maps:
        families[m.name.rpartition(".")[0], type(m.output.module)].append(m)
    repeated = [family for family in families.values() if len(family) > 1]
    return max(repeated, key=lambda family: len(family) * min(map(_count_weights, family)), default=[])


def _count_weights(m: FeatureMap) -> int:
    return sum(p.numel() for p in m.output.module.parameters())


def _drop_repeats(maps: Sequence[FeatureMap]) -> list[FeatureMap]:
    """Without repeats of an earlier map, as an identity, a permutation or dropout in eval mode returns."""
    addresses: set[tuple[int, int]] = set()
    distinct = []
    for m in maps:
        address_and_length = find_address(m.output.value), m.output.value.numel()
        if address_and_length not in addresses or m.output.has_weights():
            distinct.append(m)
        addresses.add(address_and_length)
    return distinct


def _shows_image(size: Size, image_size: Size) -> bool:
    """Whether one stride, the same on both axes, takes the image to `size`, give or take a pixel and a border.

    >>> _shows_image((9, 21), (24, 48)), _shows_image((16, 1), (32, 32)), _shows_image((49, 64), (224, 224))
    (True, False, False)
    """
    (h, w), (height, width) = size, image_size
    largest = min(height / max(h - 1, 0.5), width / max(w - 1, 0.5))
    smallest = max(height / (h + 1), width / (w + 1)) / 2  # convolutions without padding lose half of it at most
    low, high = sorted(((width - height) / largest, (width - height) / smallest))
    return low - 1 <= w - h <= high + 1


def _find_scores(outputs: Mapping[str, Output], num_classes: int) -> set[str]:
    """Names of outputs with a channel per class, from the last layer with weights on: a convolutional classifier."""
    layers = [i for i, o in enumerate(outputs.values()) if any(True for _ in o.module.parameters(recurse=False))]
    last = layers[-1] if layers else 0
    return {name for i, (name, o) in enumerate(outputs.items()) if i >= last and num_classes in o.value.shape[1:]}


def _find_points(maps: Sequence[FeatureMap], outputs: Mapping[str, Output]) -> set[str]:
    """Names of the 1x1 maps that are stages: made with weights from a larger map or another point, not by pooling.

    Where a larger map follows, the 1x1 map was a gate, as in squeeze-and-excitation.
    """
    points: set[str] = set()
    depth = -1  # of the module that took the network to 1x1; modules inside it do not count
    for i, m in enumerate(maps):
        if m.area > 1 or any(n.area > 1 and n.depth <= m.depth for n in maps[i:]):
            continue
        if _strides_to_point(m, outputs):
            depth = max(depth, m.depth)
        if m.depth <= depth and m.output.has_weights():
            points.add(m.name)
    return points


def _strides_to_point(m: FeatureMap, outputs: Mapping[str, Output]) -> bool:
    """Whether a module takes a larger map to 1x1 by other means than a global pooling."""
    if not _shrinks_to_point(m.output, m.layout):
        return False
    inside = [o for name, o in outputs.items() if f"{name}.".startswith(f"{m.name}.") and not any(o.module.children())]
    shrinking = [o for o in inside if _shrinks_to_point(o, m.layout)]
    return not shrinking or not all(_pools_globally(o) for o in shrinking)


def _shrinks_to_point(output: Output, layout: Layout) -> bool:
    if len(output.input_shape) != 4 or output.value.ndim != 4:
        return False
    return layout.size(output.value.shape) == (1, 1) != layout.size(output.input_shape)


def _pools_globally(output: Output) -> bool:
    """Whether a layer without weights takes a whole map to one point; pooling 2x2 or 3x3 is a stride."""
    return not output.has_weights() and (isinstance(output.module, POOLS) or max(output.input_shape[2:]) > 3)
