"""A dry run of a network on two random images, which shows its feature maps and how to get them."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import did_you_mean, find_user_line, one_line
from .hooks import Hooks
from .layouts import find_layouts
from .modes import advise_gradients, set_mode
from .stages import FeatureMap, Output, choose_levels, count_nesting, find_relu_behind, find_stages

IMAGES = 2  # the fewest that batch norm takes in training mode


def forward_intermediates(student: nn.Module, images: Tensor, indices: list[int] | None) -> tuple[Any, list[Tensor]]:
    """The input of the student's head, and the maps at `indices` (None: all), by timm's protocol."""
    final, maps = student.forward_intermediates(  # type: ignore[operator]
        images, indices=indices, norm=False, output_fmt="NCHW", intermediates_only=False
    )
    return final, list(maps)


def parse_indices(names: Sequence[str]) -> list[int]:
    """The indices in names that `DryRun.find_intermediates` gives; none if a name is of another kind.

    >>> parse_indices(["forward_intermediates[2]", "forward_intermediates[5]"]), parse_indices(["layer1"])
    ([2, 5], [])
    """
    matches = [re.fullmatch(r"forward_intermediates\[(\d+)\]", name) for name in names]
    return sorted({int(match[1]) for match in matches}) if all(matches) else []


class DryRun:
    """A student's outputs for two random images of one shape, and the feature maps among them.

    The student's modes and buffers and the random state stay as they were. Raises `ValueError` for a student that does
    not run on such images, or does not return class scores.
    """

    def __init__(self, student: nn.Module, image_shape: tuple[int, int, int]) -> None:
        refuse_compiled_or_empty(student)
        self.student = student
        self.network = type(student).__name__
        self.shape = "x".join(map(str, image_shape))
        self.size = (image_shape[1], image_shape[2])
        self.images = _draw_images(student, image_shape)
        self.encoded: list[Tensor] = []  # what a submodule `encoder` returns in eval mode
        self.outputs, self.logits = self._run(training=False)
        self.training_outputs, self.training_logits = self._run(training=True)
        usable = {
            name
            for name, trained in self.training_outputs.items()
            if name in self.outputs
            and trained.intact
            and self.outputs[name].intact
            and self.outputs[name].value.shape == trained.value.shape
        }
        shapes = {n: o.value.shape for n, o in self.outputs.items() if o.value.shape[:1] == (IMAGES,)}
        prefix = getattr(student, "num_prefix_tokens", None)
        self.layouts = find_layouts(shapes, self.size, prefix if isinstance(prefix, int) else None)
        depths = count_nesting(self.outputs, student)
        self.maps = [
            FeatureMap(name, self.outputs[name], layout, depths[name])
            for name, layout in self.layouts.items()
            if name in usable
        ]

    def from_names(self, names: Sequence[str]) -> list[FeatureMap]:
        """The maps of these submodules, in running order."""
        if isinstance(names, str) or not names or len(set(names)) < len(names):
            raise ValueError(f"taps={names!r} must be a list of different submodule names; {self._hint()}")
        modules = dict(self.student.named_modules(remove_duplicate=False))
        maps = {m.name: m for m in self.maps}
        for name in names:
            if not name or name not in modules:
                hint = did_you_mean(name, maps, otherwise=self._hint())
                raise ValueError(f"{self.network} has no submodule {name!r}{hint}")
            if name not in maps:
                raise ValueError(f"{self._explain(name)}; {self._hint()}")
        return [m for m in self.maps if m.name in names]

    def find_intermediates(self, wanted: list[int]) -> dict[int, tuple[str, Tensor]]:
        """Names and maps of `forward_intermediates`, by index: the indices `wanted`, or else those of the stages.

        Empty where the student has no such method, where it gives other scores than `forward`, in eval or in training
        mode, and where a later layer overwrites a map.
        """
        if not hasattr(self.student, "forward_intermediates") or self.logits.ndim > 2:
            return {}
        try:
            with _preserve_state(self.student, training=False):
                final, maps = forward_intermediates(self.student, self.images, None)
                indices = wanted or choose_levels(range(len(maps)), [(m.shape[2], m.shape[3]) for m in maps])
                consistent = self._is_consistent(final, {i: maps[i] for i in indices})
            with _preserve_state(self.student, training=True):
                final, trained = forward_intermediates(self.student, self.images, indices)
                consistent = consistent and agree(self.student.forward_head(final), self.training_logits)
        except Exception:  # other people's code; if it fails, hooks do the work
            return {}
        if not consistent or [maps[i].shape for i in indices] != [m.shape for m in trained]:
            return {}
        return self._name_maps({i: maps[i] for i in indices})

    def from_feature_info(self) -> list[FeatureMap]:
        """Maps of the modules that the student's `feature_info` names; none where its entries are wrong."""
        channels = _read_feature_info(self.student)
        maps = [m for m in self.maps if m.name in channels]
        correct = len(maps) == len(channels) and all(channels[m.name] == m.channels for m in maps)
        return choose_levels(maps, [m.size for m in maps]) if correct and maps else []

    def from_encoder(self) -> list[FeatureMap]:
        """What a segmenter's `encoder` hands to its decoder, the last map at each resolution; none without an encoder.

        Only maps that a submodule returns count, not the image itself and empty placeholders.
        """
        if self.logits.ndim == 2:
            return []
        features = [f for f in self.encoded if f.ndim == 4 and f.shape[1] > 1]
        emitters = {self._find_emitter(feature) for feature in features}
        maps = [m for m in self.maps if m.name in emitters]
        return choose_levels(maps, [m.size for m in maps]) if maps else []

    def from_outputs(self) -> list[FeatureMap]:
        """The stages among all outputs, see `find_stages`; of a segmenter with a `backbone`, among those inside it."""
        inside = "backbone." if self.logits.ndim > 2 and hasattr(self.student, "backbone") else ""
        maps = [m for m in self.maps if m.name.startswith(inside)]
        if stages := find_stages(maps, self.outputs, self.logits, self.size):
            return stages
        raise ValueError(
            f"no feature map was found in {self.network} on {self.shape} images; name submodules that return one, "
            f"(b, c, h, w) or tokens (b, n, c), in taps=[...], or take larger images"
        )

    def is_rectified(self, name: str) -> bool:
        """Whether the submodule `name` returns what an `nn.ReLU` gave, in eval and in training mode."""
        relus = [find_relu_behind(name, outputs) for outputs in (self.outputs, self.training_outputs)]
        return all(relu is not None and relu.intact for relu in relus)

    def _run(self, training: bool) -> tuple[dict[str, Output], Tensor]:
        """Every submodule's output, by name in the order in which they return, and the class scores."""
        outputs: dict[str, Output] = {}

        def record_output(name: str, module: nn.Module, inputs: tuple[Any, ...], value: Any) -> None:
            outputs.pop(name, None)  # only the last of several calls counts
            if isinstance(value, Tensor):
                input_shape = inputs[0].shape if inputs and isinstance(inputs[0], Tensor) else ()
                outputs[name] = Output(module, input_shape, value, value._version)
            elif name == "encoder" and not training:
                self.encoded = list(_flatten(value))

        mode = " in training mode" if training else ""
        try:
            with Hooks() as hooks, _preserve_state(self.student, training):
                for name, module in self.student.named_modules(remove_duplicate=False):
                    if name:
                        hooks.on_output(module, record_output, name)
                logits = self.student(self.images)
        except Exception as error:
            is_users = find_user_line(error) is not None
            with _preserve_state(self.student, training):
                advice = advise_gradients(self.student, self.images)
            if not advice and not is_users:
                advice = "; take another image size, or build it for this one"
            raise ValueError(
                f"{self.network} does not run on {self.shape} images{mode} ({one_line(error)}){advice}"
            ) from error
        if not isinstance(logits, Tensor) or logits.ndim not in (2, 4) or len(logits) != IMAGES:
            returned = f"a tensor {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            raise ValueError(
                f"{self.network} returns {returned} for {IMAGES} images{mode}, but a student returns class scores, one "
                f"(b, k) or (b, k, h, w) tensor; build it without auxiliary outputs, or wrap it"
            )
        return outputs, logits

    def _is_consistent(self, final: Any, maps: Mapping[int, Tensor]) -> bool:
        """Whether `forward_intermediates` gave the student's features and scores, and maps that nothing overwrites."""
        # Features first: a classifier that starts at zero gives equal scores for unequal ones.
        consistent = agree(final, self.student.forward_features(self.images))  # type: ignore[operator]
        consistent = consistent and agree(self.student.forward_head(final), self.logits)  # type: ignore[operator]
        for i, value in maps.items():
            # When the network stops at this map, no later layer can overwrite it.
            (stopped_early,) = self.student.forward_intermediates(  # type: ignore[operator]
                self.images, indices=[i], norm=False, stop_early=True, output_fmt="NCHW", intermediates_only=True
            )
            consistent = consistent and value.ndim == 4 and len(value) == IMAGES and agree(value, stopped_early)
        return consistent

    def _name_maps(self, maps: Mapping[int, Tensor]) -> dict[int, tuple[str, Tensor]]:
        """Each map with the submodule that returns it; where one map has none, all are named by their index."""
        names = {i: self._find_emitter(value) for i, value in maps.items()}
        if None in names.values():
            names = {i: f"forward_intermediates[{i}]" for i in maps}
        return {i: (names[i], maps[i]) for i in maps}

    def _find_emitter(self, value: Tensor) -> str | None:
        """The submodule that returns this map.

        Of several it is one in `feature_info`, else one with weights, the least nested of these, the last to run.
        """
        equal_maps = [
            m for m in self.maps if (m.channels, *m.size) == value.shape[1:] and torch.equal(m.value(), value)
        ]
        equal_maps.sort(key=lambda m: (m.name in _read_feature_info(self.student), m.output.has_weights(), -m.depth))
        return equal_maps[-1].name if equal_maps else None

    def _explain(self, name: str) -> str:
        """Why the submodule `name` cannot be tapped."""
        if name not in self.outputs:
            return f"{name!r} returns no tensor when {self.network} runs"
        output = self.outputs[name]
        if name not in self.layouts:
            return f"{name!r} returns a tensor {tuple(output.value.shape)}, no map of {self.shape} images"
        if output.intact:
            return f"the map of {name!r} is overwritten in place, or has another size, in training mode"
        overwriters = [m.name for m in self.maps if m.output.shares_memory(output.value)]
        return f"the map of {name!r} is overwritten in place by {overwriters[0] if overwriters else 'a later layer'}"

    def _hint(self) -> str:
        stages = find_stages(self.maps, self.outputs, self.logits, self.size)
        return f"the stages found are {', '.join(m.name for m in stages)}" if stages else "no stage was found"


@contextlib.contextmanager
def _preserve_state(student: nn.Module, training: bool) -> Iterator[None]:
    """One mode, no gradients. Modes, buffers and random state are restored, so that equal calls give equal results."""
    buffers = [(m, name, b, b.clone()) for m in student.modules() for name, b in m._buffers.items() if b is not None]
    device = _find_device_and_dtype(student)[0]
    gpus = [device] if device.type == "cuda" else []
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        torch.random.fork_rng(gpus),
        set_mode(student, training=training),
    ):
        try:
            yield
        finally:
            for module, name, buffer, value in buffers:
                module._buffers[name] = buffer
                if not torch.equal(buffer, value):
                    buffer.copy_(value)


def _flatten(value: Any) -> Iterator[Tensor]:
    """The tensors in nested lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for member in value:
            yield from _flatten(member)


def refuse_compiled_or_empty(student: nn.Module) -> None:
    """Raises `ValueError` for a compiled network, and for one whose parameters have no values yet."""
    network = type(student).__name__
    if network == "OptimizedModule" or isinstance(student, torch.jit.ScriptModule):
        raise ValueError(
            f"{network} is compiled and hides its feature maps; give the plain network, compile the method"
        )
    if isinstance(student, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise ValueError(f"{network} wraps a network for several devices; give the plain network, wrap the method")
    if any(is_lazy(t) or t.is_meta for t in (*student.parameters(), *student.buffers())):
        raise ValueError(f"{network} has parameters without values (lazy, or on the meta device); give it values first")


def _find_device_and_dtype(student: nn.Module) -> tuple[torch.device, torch.dtype]:
    tensors = [t for t in (*student.parameters(), *student.buffers()) if t.is_floating_point()]
    return (tensors[0].device, tensors[0].dtype) if tensors else (torch.device("cpu"), torch.float32)


def _draw_images(student: nn.Module, image_shape: tuple[int, int, int]) -> Tensor:
    device, dtype = _find_device_and_dtype(student)
    return torch.rand(IMAGES, *image_shape, generator=torch.Generator().manual_seed(0), device="cpu").to(device, dtype)


def _read_feature_info(student: nn.Module) -> dict[str, int]:
    """Channels by module name, from the student's `feature_info`; empty if it has another form."""
    info = getattr(student, "feature_info", None)
    if not isinstance(info, Sequence) or not all(isinstance(entry, Mapping) and "module" in entry for entry in info):
        return {}
    return {entry["module"]: entry.get("num_chs") for entry in info}


def agree(outputs: Any, expected: Any) -> bool:
    """Whether tensors are equal but for rounding; lists are compared member by member."""
    if not isinstance(expected, Tensor):
        return len(outputs) == len(expected) and all(map(agree, outputs, expected))
    if outputs.shape != expected.shape:
        return False
    tolerance = torch.finfo(expected.dtype).eps ** 0.5
    return bool((outputs - expected).abs().max() <= tolerance * expected.abs().max())
