"""Feature maps of any network, as return values.

The network is neither rewritten nor subclassed. Its maps come from timm's `forward_intermediates` where it has one that
agrees with its `forward`, else from forward hooks that do nothing outside `Taps.__call__`.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from .hooks import Recorder
from .layouts import Layout, Size
from .probe import DryRun, forward_intermediates, parse_indices
from .stages import FeatureMap


def stage_ends(student: nn.Module) -> list[str] | None:
    """The submodules whose outputs go from stage to stage, if the network names them apart from its taps; else None.

    A network names them by a key "stage_end" in its `feature_info`. A pre-activation network is tapped inside the next
    stage, after the activation, but what goes from stage to stage is the sum before it.
    """
    info = getattr(student, "feature_info", None)
    if not isinstance(info, list) or not info:
        return None
    if not all(isinstance(entry, dict) and "stage_end" in entry for entry in info):
        return None
    return [entry["stage_end"] for entry in info]


class Tap(NamedTuple):
    """One feature map: the submodule that returns it, and its form for images of the shape given to `Taps`."""

    name: str
    channels: int
    size: Size


class Taps:
    """Runs a student and returns its feature maps: `logits, features = taps(images)`, shallow to deep.

    Without `names`, the stages are looked for in this order: in the student's `tap_names`, by timm's
    `forward_intermediates`, by the modules named in its `feature_info`, by what a segmenter's `encoder` hands to its
    decoder, by a dry run. The last map of each resolution is taken, the deepest four at most; of a network with one
    resolution (a ViT), four evenly spaced blocks. Tokens (b, n, c) and maps (b, h, w, c) become (b, c, h, w).
    Iterating gives each map's `Tap`, and `source` says where the maps come from.

    The dry run takes two random images through the student, in eval and in training mode, and leaves its modes, its
    buffers and the random state as they were. Hooks on the student are removed by `close`, and when the `Taps` is
    collected.

    Args:
        student: A plain network whose `forward` returns class scores, (b, k) or (b, k, h, w).
        image_shape: (channels, height, width) of the images that it will see.
        names: Submodules of the student, in any order.

    Raises:
        ValueError: for a student that does not run on `image_shape` or does not return class scores, and for maps
            that do not exist or that a later layer overwrites in place.

    >>> from selfdistill import build_student
    >>> taps = Taps(build_student("cifar:resnet8", num_classes=10, image_shape=(3, 32, 32)), (3, 32, 32))
    >>> [tap.name for tap in taps], taps.channels
    (['layer1', 'layer2', 'layer3'], [16, 32, 64])
    """

    rectified: list[bool]  # of each map, whether it is known to be the output of an `nn.ReLU`
    source: Literal["names", "forward_intermediates", "feature_info", "encoder", "dry run"]

    def __init__(
        self, student: nn.Module, image_shape: tuple[int, int, int], names: Sequence[str] | None = None
    ) -> None:
        self.student, self.image_shape = student, image_shape
        self._recorder = Recorder()
        self._indices: list[int] | None = None  # of forward_intermediates, if the maps come from there
        self._layouts: list[Layout] = []
        dry = DryRun(student, image_shape)
        self.num_classes, *positions = dry.logits.shape[1:]
        self.positions = tuple(positions)  # what follows (b, k) in the shape of the scores
        names = getattr(student, "tap_names", None) if names is None else names
        wanted = parse_indices(names or ())
        if (names is None or wanted) and (intermediates := dry.find_intermediates(wanted)):
            self.source = "forward_intermediates"
            self._indices = list(intermediates)
            self._taps = [Tap(name, m.shape[1], (m.shape[2], m.shape[3])) for name, m in intermediates.values()]
        elif names is not None:
            self.source = "names"
            self._record(dry.from_names(names))
        elif maps := dry.from_feature_info():
            self.source = "feature_info"
            self._record(maps)
        elif maps := dry.from_encoder():
            self.source = "encoder"
            self._record(maps)
        else:
            self.source = "dry run"
            self._record(dry.from_outputs())
        self.rectified = [dry.is_rectified(tap.name) for tap in self]

    def __call__(
        self, images: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b k *pos"], list[Float[Tensor, "b _ _ _"]]]:
        """The student's class scores and one map per tap, shallow to deep; all carry gradients."""
        if self._indices is not None:
            final, features = forward_intermediates(self.student, images, self._indices)
            return self.student.forward_head(final), features  # type: ignore[operator]
        logits, outputs = self._recorder.record(self.student, images)
        return logits, [layout.to_map(outputs[i]) for i, layout in enumerate(self._layouts)]

    def close(self) -> None:
        """Removes the hooks from the student. A closed `Taps` returns no maps any more."""
        self._recorder.close()

    def __iter__(self) -> Iterator[Tap]:
        return iter(self._taps)

    def __len__(self) -> int:
        return len(self._taps)

    @property
    def channels(self) -> list[int]:
        """Channels of each map, shallow to deep."""
        return [tap.channels for tap in self._taps]

    def _record(self, maps: list[FeatureMap]) -> None:
        self._taps = [Tap(m.name, m.channels, m.size) for m in maps]
        self._layouts = [m.layout for m in maps]
        for i, m in enumerate(maps):
            self._recorder.record_output(m.output.module, i)
