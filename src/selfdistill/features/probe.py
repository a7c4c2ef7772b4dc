"""Two random images through a network, to learn which feature maps can be had of it, and how."""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import did_you_mean, one_line
from .hooks import Hooks
from .layouts import layouts
from .modes import set_mode
from .stages import Map, Output, chosen, nesting, relu_behind, stages

IMAGES = 2  # the fewest that batch norm takes in training mode


def forward_intermediates(student: nn.Module, images: Tensor, indices: list[int] | None) -> tuple[Any, list[Tensor]]:
    """What the student's head takes, and the maps at `indices` (None: all), by timm's protocol."""
    final, maps = student.forward_intermediates(  # type: ignore[operator]
        images, indices=indices, norm=False, output_fmt="NCHW", intermediates_only=False
    )
    return final, list(maps)


def intermediate_indices(names: Sequence[str]) -> list[int]:
    """The indices in names that `DryRun.intermediates` gives to maps of no submodule; none if one is not of these.

    >>> intermediate_indices(["forward_intermediates[2]", "forward_intermediates[5]"]), intermediate_indices(["layer1"])
    ([2, 5], [])
    """
    found = [re.fullmatch(r"forward_intermediates\[(\d+)\]", name) for name in names]
    return sorted({int(match[1]) for match in found}) if all(found) else []


class DryRun:
    """A student's outputs for two random images of one shape, and the maps to be found in them.

    The student's modes and buffers and the random state are afterwards as they were.
    """

    def __init__(self, student: nn.Module, image_shape: tuple[int, int, int]) -> None:
        _refuse_what_cannot_run(student)
        self.student = student
        self.network = type(student).__name__
        self.shape = "x".join(map(str, image_shape))
        self.size = (image_shape[1], image_shape[2])
        self.images = _random_images(student, image_shape)
        self.handed: list[Tensor] = []  # what a submodule `encoder` returns in eval mode
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
        self.layouts = layouts(shapes, self.size, prefix if isinstance(prefix, int) else None)
        depths = nesting(self.outputs, student)
        self.maps = [Map(n, self.outputs[n], layout, depths[n]) for n, layout in self.layouts.items() if n in usable]

    def named(self, names: Sequence[str]) -> list[Map]:
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
                raise ValueError(f"{self._flaw(name)}; {self._hint()}")
        return [m for m in self.maps if m.name in names]

    def intermediates(self, wanted: list[int]) -> dict[int, tuple[str, Tensor]]:
        """What `forward_intermediates` is to be asked for: indices, those `wanted` or else the stages, names and maps.

        Empty where the student has no such method, or one that gives other scores than its `forward`, in eval or in
        training mode, or maps that a later layer overwrites.
        """
        if not hasattr(self.student, "forward_intermediates") or self.logits.ndim > 2:
            return {}
        try:
            with _undisturbed(self.student, training=False):
                final, maps = forward_intermediates(self.student, self.images, None)
                indices = wanted or chosen(range(len(maps)), [(m.shape[2], m.shape[3]) for m in maps])
                true = self._is_true(final, {i: maps[i] for i in indices})
            with _undisturbed(self.student, training=True):
                final, trained = forward_intermediates(self.student, self.images, indices)
                true = true and agree(self.student.forward_head(final), self.training_logits)
        except Exception:  # other people's code: whatever it cannot do, the hooks can
            return {}
        if not true or [maps[i].shape for i in indices] != [m.shape for m in trained]:
            return {}
        return self._with_names({i: maps[i] for i in indices})

    def from_feature_info(self) -> list[Map]:
        """Maps of the modules that the student's `feature_info` names; none where it is not true to the student."""
        channels = _feature_info(self.student)
        maps = [m for m in self.maps if m.name in channels]
        true = len(maps) == len(channels) and all(channels[m.name] == m.channels for m in maps)
        return chosen(maps, [m.size for m in maps]) if true and maps else []

    def from_encoder(self) -> list[Map]:
        """What a segmenter's `encoder` hands to its decoder, the last map at each resolution; none where it has none.

        Only maps that a submodule returns, which leaves out the image itself and empty place-holders.
        """
        if self.logits.ndim == 2:
            return []
        features = [f for f in self.handed if f.ndim == 4 and f.shape[1] > 1]
        emitters = {self._emitter(feature) for feature in features}
        maps = [m for m in self.maps if m.name in emitters]
        return chosen(maps, [m.size for m in maps]) if maps else []

    def found(self) -> list[Map]:
        """The stages among all outputs, see `stages`; of a segmenter with a `backbone`, among those inside of it."""
        inside = "backbone." if self.logits.ndim > 2 and hasattr(self.student, "backbone") else ""
        maps = [m for m in self.maps if m.name.startswith(inside)]
        if found := stages(maps, self.outputs, self.logits, self.size):
            return found
        raise ValueError(
            f"no feature map was found in {self.network} on {self.shape} images; name submodules that return one, "
            f"(b, c, h, w) or tokens (b, n, c), in taps=[...], or take larger images"
        )

    def is_rectified(self, name: str) -> bool:
        """Whether the submodule `name` returns what an `nn.ReLU` gave, in eval and in training mode."""
        relus = [relu_behind(name, outputs) for outputs in (self.outputs, self.training_outputs)]
        return all(relu is not None and relu.intact for relu in relus)

    def _run(self, training: bool) -> tuple[dict[str, Output], Tensor]:
        """Every submodule's output, by name in the order in which they return, and the class scores."""
        outputs: dict[str, Output] = {}

        def note(name: str, module: nn.Module, args: tuple[Any, ...], value: Any) -> None:
            outputs.pop(name, None)  # of several calls the last one counts
            if isinstance(value, Tensor):
                given = args[0].shape if args and isinstance(args[0], Tensor) else ()
                outputs[name] = Output(module, given, value, value._version)
            elif name == "encoder" and not training:
                self.handed = list(_tensors(value))

        mode = " in training mode" if training else ""
        try:
            with Hooks() as hooks, _undisturbed(self.student, training):
                for name, module in self.student.named_modules(remove_duplicate=False):
                    if name:
                        hooks.on_output(module, note, name)
                logits = self.student(self.images)
        except Exception as error:
            raise ValueError(
                f"{self.network} does not run on {self.shape} images{mode} ({one_line(error)}); take another image "
                f"size, or build it for this one"
            ) from error
        if not isinstance(logits, Tensor) or logits.ndim not in (2, 4) or len(logits) != IMAGES:
            given = f"a tensor {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
            raise ValueError(
                f"{self.network} returns {given} for {IMAGES} images{mode}, but a student returns class scores, one "
                f"(b, k) or (b, k, h, w) tensor; build it without auxiliary outputs, or wrap it"
            )
        return outputs, logits

    def _is_true(self, final: Any, maps: Mapping[int, Tensor]) -> bool:
        """Whether `forward_intermediates` led to the student's scores, by its features, and to maps that stay."""
        # Features first: a classifier that starts at zero gives equal scores for unequal ones.
        true = agree(final, self.student.forward_features(self.images))  # type: ignore[operator]
        true = true and agree(self.student.forward_head(final), self.logits)  # type: ignore[operator]
        for i, value in maps.items():
            # Stopped there, nothing has run that could overwrite the map.
            (alone,) = self.student.forward_intermediates(  # type: ignore[operator]
                self.images, indices=[i], norm=False, stop_early=True, output_fmt="NCHW", intermediates_only=True
            )
            true = true and value.ndim == 4 and len(value) == IMAGES and agree(value, alone)
        return true

    def _with_names(self, maps: Mapping[int, Tensor]) -> dict[int, tuple[str, Tensor]]:
        """Beside each map the submodule that emits it; where one has none, all are named by their index."""
        names = {i: self._emitter(value) for i, value in maps.items()}
        if None in names.values():
            names = {i: f"forward_intermediates[{i}]" for i in maps}
        return {i: (names[i], maps[i]) for i in maps}

    def _emitter(self, value: Tensor) -> str | None:
        """A submodule that `feature_info` names before the least nested, and of these the last."""
        same = [m for m in self.maps if (m.channels, *m.size) == value.shape[1:] and torch.equal(m.value(), value)]
        same.sort(key=lambda m: (m.name in _feature_info(self.student), m.output.has_weights(), -m.depth))
        return same[-1].name if same else None

    def _flaw(self, name: str) -> str:
        """Why the submodule `name` cannot be tapped."""
        if name not in self.outputs:
            return f"{name!r} returns no tensor when {self.network} runs"
        output = self.outputs[name]
        if name not in self.layouts:
            return f"{name!r} returns a tensor {tuple(output.value.shape)}, no map of {self.shape} images"
        if output.intact:
            return f"the map of {name!r} is overwritten in place, or has another size, in training mode"
        heirs = [m.name for m in self.maps if m.output.lies_in(output.value)]
        return f"the map of {name!r} is overwritten in place by {heirs[0] if heirs else 'a later layer'}"

    def _hint(self) -> str:
        found = stages(self.maps, self.outputs, self.logits, self.size)
        return f"the stages found are {', '.join(m.name for m in found)}" if found else "no stage was found"


@contextlib.contextmanager
def _undisturbed(student: nn.Module, training: bool) -> Iterator[None]:
    """One mode, no gradients; modes, buffers and random state come back, so that equal calls have equal results."""
    buffers = [(m, name, b, b.clone()) for m in student.modules() for name, b in m._buffers.items() if b is not None]
    device = _device_and_dtype(student)[0]
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


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in nested lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _tensors(each)


def _refuse_what_cannot_run(student: nn.Module) -> None:
    kind = type(student).__name__
    if kind == "OptimizedModule" or isinstance(student, torch.jit.ScriptModule):
        raise ValueError(f"{kind} is compiled and hides its feature maps; give the plain network, compile the method")
    if any(is_lazy(t) or t.is_meta for t in (*student.parameters(), *student.buffers())):
        raise ValueError(f"{kind} has parameters without values (lazy, or on the meta device); give it values first")


def _device_and_dtype(student: nn.Module) -> tuple[torch.device, torch.dtype]:
    tensors = [t for t in (*student.parameters(), *student.buffers()) if t.is_floating_point()]
    return (tensors[0].device, tensors[0].dtype) if tensors else (torch.device("cpu"), torch.float32)


def _random_images(student: nn.Module, image_shape: tuple[int, int, int]) -> Tensor:
    device, dtype = _device_and_dtype(student)
    return torch.rand(IMAGES, *image_shape, generator=torch.Generator().manual_seed(0)).to(device, dtype)


def _feature_info(student: nn.Module) -> dict[str, int]:
    """Channels by module name, as the student's `feature_info` has them; empty where it is in another form."""
    info = getattr(student, "feature_info", None)
    if not isinstance(info, Sequence) or not all(isinstance(entry, Mapping) and "module" in entry for entry in info):
        return {}
    return {entry["module"]: entry.get("num_chs") for entry in info}


def agree(ours: Any, theirs: Any) -> bool:
    """Equal up to the order of the same sums; lists by their members."""
    if not isinstance(theirs, Tensor):
        return len(ours) == len(theirs) and all(map(agree, ours, theirs))
    if ours.shape != theirs.shape:
        return False
    tolerance = torch.finfo(theirs.dtype).eps ** 0.5
    return bool((ours - theirs).abs().max() <= tolerance * theirs.abs().max())
