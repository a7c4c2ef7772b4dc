"""Fresh copies of what a student runs behind one of its feature maps, for any network whose stages run in a row.

The network is not taken apart: a copy of it is made in which whatever ran up to that map passes its input on, so that
the copy's own `forward` does the rest, functional operations and all. Before its weights are drawn anew the copy must
repeat the student's scores from the student's map; a network with another flow than stage after stage fails there.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..features.extractor import Taps
from ..features.hooks import Recorder, copy_without_hooks
from ..features.layouts import Layout
from ..features.probe import DryRun, agree
from ..features.stages import Output
from .strides import has, runs, without_strides

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


class RemainingStages(nn.Module):
    """A feature map as `Taps` gives it -> scores (b, k), by way of a map of the deepest stage."""

    def __init__(self, entry: nn.Module, rest: nn.Module, deepest: str, layouts: tuple[Layout, Layout]) -> None:
        super().__init__()
        self.entry, self.rest = entry, rest
        self.layout, self.deepest_layout = layouts
        self._recorder = Recorder()
        self._recorder.record_output(rest.get_submodule(deepest), "deepest")

    def forward(self, feature: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """The scores alone."""
        return self.rest(self.layout.from_map(self.entry(feature)))

    def with_map(self, feature: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b d y x"]]:
        """The scores and the deepest stage's map."""
        scores, outputs = self._recorder.record(self, feature)
        return scores, self.deepest_layout.to_map(outputs["deepest"])


class FirstArgument(nn.Module):
    """Returns its first argument and takes any others: stands in for whatever ran before the branch."""

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        return x


def remaining_stages(taps: Taps, level: int, num_outputs: int) -> RemainingStages:
    """A copy, with weights of its own, of what the student runs after its map at `level`, 0 being the shallowest.

    The classifier has `num_outputs` instead of the student's. Behind the deepest map nothing is left but the head:
    there it is the last stage once more, from that map's channels and without its strides. Weight matrices are drawn as
    widely as the student's own, see `redrawn`. Raises `ValueError` for a network that cannot be run from the map on.
    Source: the auxiliary branches of Yang et al., 2021, section 3.2, https://arxiv.org/abs/2107.13715
    """
    names = [tap.name for tap in taps]
    again = level == len(names) - 1
    if again and len(names) == 1:
        raise ValueError("a student with a single feature map has no stage to run once more; name more in taps=[...]")
    start = names[level - 1] if again else names[level]
    behind(DryRun(stirred(taps.student), taps.image_shape), start)
    dry = DryRun(taps.student, taps.image_shape)
    rest = behind(dry, start)
    deepest, layouts = list(taps)[-1], (dry.layouts[start], dry.layouts[names[-1]])
    entry: nn.Module = nn.Identity()
    if again:
        stage = _between(dry, start, deepest.name)
        entry, rest = without_strides(rest, stage, deepest, taps.channels[level - 1], layouts[0])
    _set_classifier(rest, dry, num_outputs)
    return RemainingStages(entry, redrawn(rest), deepest.name, layouts)


def behind(dry: DryRun, start: str) -> nn.Module:
    """A copy of the student that takes what its submodule `start` returns, and gives the same scores.

    Raises `ValueError` where it would not.
    """
    rest = copy_without_hooks(dry.student).requires_grad_(True)  # branches of a frozen student learn all the same
    if start in dry.outputs:
        for name in _finished(list(dry.outputs), start):
            rest.set_submodule(name, FirstArgument())
        with torch.no_grad():
            true = runs(lambda: agree(rest.eval()(dry.outputs[start].value), dry.logits))
    if start not in dry.outputs or not true:
        raise ValueError(
            f"{dry.kind} cannot be run from {start!r} on, as its scores do not follow from that map alone; a method "
            f"that copies the stages behind a map needs a network that only hands maps on: take a CNN, or other taps"
        )
    _freeze_idle(rest, dry.outputs[start].value)
    return rest.train()


def stirred(student: nn.Module) -> nn.Module:
    """A copy whose all-zero parameters are random: a classifier or gate that starts at zero hides what it gets."""
    copied = copy_without_hooks(student)
    with torch.no_grad():
        for parameter in copied.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return copied


def redrawn(module: nn.Module) -> nn.Module:
    """The module itself, as if new: weight matrices drawn from N(0, their own variance), biases 0, norms reset.

    So the copy starts as its network does, whatever initialisation that chose. Scales, which do not vary around 0, and
    the parameters of other layers stay as they are.
    """
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, NORMS):
                part.reset_parameters()
                continue
            for parameter in part.parameters(recurse=False):
                if sum(length > 1 for length in parameter.shape) > 1 and parameter.std() > parameter.mean().abs():
                    parameter.normal_(std=float(parameter.std()))
            if isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
                part.bias.zero_()
    return module


def _between(dry: DryRun, start: str, end: str) -> dict[str, Output]:
    """The outputs of the submodules that return after `start` and not after `end`, in that order."""
    order = list(dry.outputs)
    return {name: dry.outputs[name] for name in order[order.index(start) + 1 : order.index(end) + 1]}


def _finished(order: list[str], start: str) -> Iterator[str]:
    """Of the submodules that have returned once `start` has, the outermost."""
    done = set(order[: order.index(start) + 1])
    for name in done:
        parts = name.split(".")
        if not any(".".join(parts[:i]) in done for i in range(1, len(parts))):
            yield name


def _freeze_idle(rest: nn.Module, given: Tensor) -> None:
    """Takes parameters that the scores do not depend on out of training."""
    trained = [parameter for parameter in rest.parameters() if parameter.requires_grad]
    if not trained:
        return
    with torch.enable_grad():
        scores = rest(given.detach())
    for parameter, gradient in zip(trained, torch.autograd.grad(scores.sum(), trained, allow_unused=True), strict=True):
        parameter.requires_grad_(gradient is not None)


def _set_classifier(rest: nn.Module, dry: DryRun, num_outputs: int) -> None:
    """Gives the last layer that scores the classes `num_outputs` instead."""
    num_classes = dry.logits.shape[1]
    for name in reversed(list(dry.outputs)):
        layer = rest.get_submodule(name) if has(rest, name) else None
        if getattr(layer, "out_features", getattr(layer, "out_channels", None)) != num_classes:
            continue
        if isinstance(layer, nn.Conv2d | nn.Linear) and isinstance(layer._parameters.get("weight"), nn.Parameter):
            _set_outputs(layer, num_outputs)
            return
    raise ValueError(f"the last layer of {dry.kind} is no linear layer or convolution with an output for every class")


def _set_outputs(layer: nn.Conv2d | nn.Linear, num_outputs: int) -> None:
    """A weight for each output, drawn as widely as the layer's; as 1 / sqrt(inputs) where that one is all zero."""
    old = layer.weight.detach()
    std = old.std() if old.any() else old[0].numel() ** -0.5
    layer.weight = nn.Parameter(torch.randn_like(old[:1].expand(num_outputs, *old.shape[1:])) * std)
    if layer.bias is not None:
        layer.bias = nn.Parameter(old.new_zeros(num_outputs))
    setattr(layer, "out_features" if isinstance(layer, nn.Linear) else "out_channels", num_outputs)
