"""Copies of what a student runs after one of its feature maps, with new weights, for any network without bypasses.

The network is not taken apart. A copy of it is made in which every module up to that map returns its input, so that the
copy's own `forward` does the rest, functional operations included. Before its weights are drawn anew, the copy must
give the student's scores from the student's map. A network that passes anything around that map fails there.
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
from .strides import copy_without_strides, has_submodule

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


class RemainingStages(nn.Module):
    """A feature map as `Taps` returns it -> scores (b, k), by way of a map of the deepest stage."""

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
    """Returns its first argument: replaces the modules that ran before the branch."""

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        return x


def remaining_stages(taps: Taps, level: int, num_outputs: int) -> RemainingStages:
    """A copy, with weights of its own, of what the student runs after its map at `level`, 0 being the shallowest.

    The classifier has `num_outputs` instead of the student's. After the deepest map only the head is left: there the
    branch is the last stage once more, from that map's channels and without its strides. Weight matrices are drawn as
    widely as the student's own, see `reinitialize`. Raises `ValueError` for a network that cannot be run from the map
    on. Source: the auxiliary branches of Yang et al., 2021, section 3.2, https://arxiv.org/abs/2107.13715
    """
    names = [tap.name for tap in taps]
    repeats_last_stage = level == len(names) - 1
    if repeats_last_stage and len(names) == 1:
        raise ValueError("a student with a single feature map has no stage to run once more; name more in taps=[...]")
    start = names[level - 1] if repeats_last_stage else names[level]
    copy_behind(DryRun(randomize_zeros(taps.student), taps.image_shape), start)
    dry = DryRun(taps.student, taps.image_shape)
    rest = freeze_unused(copy_behind(dry, start), dry.outputs[start].value)
    deepest, layouts = list(taps)[-1], (dry.layouts[start], dry.layouts[names[-1]])
    entry: nn.Module = nn.Identity()
    if repeats_last_stage:
        stage = select_outputs(dry, start, deepest.name)
        entry, rest = copy_without_strides(rest, stage, deepest, taps.channels[level - 1], layouts[0])
    replace_classifier(rest, dry, num_outputs)
    return RemainingStages(entry, reinitialize(rest), deepest.name, layouts)


def copy_behind(dry: DryRun, start: str) -> nn.Module:
    """A copy of the student, in eval mode, that takes what its submodule `start` returns and gives the same scores.

    Raises `ValueError` where it does not.
    """
    rest = copy_without_hooks(dry.student).requires_grad_(True)  # branches of a frozen student learn all the same
    if start in dry.outputs:
        for name in list_outermost_finished(list(dry.outputs), start):
            rest.set_submodule(name, FirstArgument())
    if start not in dry.outputs or not gives_same_scores(rest, dry.outputs[start].value, dry.logits):
        raise ValueError(
            f"{dry.network} cannot be run from {start!r} on, as its scores do not follow from that map alone; a method "
            f"that copies the stages behind a map needs a network that only hands maps on: take a CNN, or other taps"
        )
    return rest


def gives_same_scores(rest: nn.Module, start: Tensor, logits: Tensor) -> bool:
    """Whether the rest of a network runs from `start`, in eval mode, and gives the network's `logits`."""
    try:
        with torch.no_grad():
            return agree(rest.eval()(start), logits)
    except Exception:  # other people's code
        return False


def randomize_zeros(student: nn.Module) -> nn.Module:
    """A copy whose all-zero parameters are random: a classifier or gate that starts at zero hides its input."""
    randomized = copy_without_hooks(student)
    with torch.no_grad():
        for parameter in randomized.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return randomized


def reinitialize(module: nn.Module) -> nn.Module:
    """The module itself, as if new: weight matrices drawn from N(0, their own variance), biases 0, norms reset.

    So the copy starts as its network did, whatever initialization that chose. Scales, which do not vary around 0, and
    the parameters of other layers stay as they are.
    """
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, NORMS):
                layer.reset_parameters()
                continue
            for parameter in layer.parameters(recurse=False):
                if sum(length > 1 for length in parameter.shape) > 1 and parameter.std() > parameter.mean().abs():
                    parameter.normal_(std=float(parameter.std()))
            if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
                layer.bias.zero_()
    return module


def select_outputs(dry: DryRun, start: str, end: str) -> dict[str, Output]:
    """The outputs of the submodules that return after `start` and not after `end`, in that order."""
    order = list(dry.outputs)
    return {name: dry.outputs[name] for name in order[order.index(start) + 1 : order.index(end) + 1]}


def list_outermost_finished(order: list[str], start: str) -> Iterator[str]:
    """The submodules that have returned when `start` returns, without those inside another of them."""
    finished = set(order[: order.index(start) + 1])
    for name in finished:
        path = name.split(".")
        if not any(".".join(path[:i]) in finished for i in range(1, len(path))):
            yield name


def freeze_unused(rest: nn.Module, start: Tensor) -> nn.Module:
    """The module itself in training mode, with the parameters frozen that its scores for `start` do not depend on."""
    parameters = [parameter for parameter in rest.parameters() if parameter.requires_grad]
    if not parameters:
        return rest.train()
    with torch.enable_grad():
        scores = rest(start.detach())
    gradients = torch.autograd.grad(scores.sum(), parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)
    return rest.train()


def replace_classifier(rest: nn.Module, dry: DryRun, num_outputs: int) -> None:
    """Gives the last layer that scores the classes `num_outputs` outputs instead."""
    num_classes = dry.logits.shape[1]
    for name in reversed(list(dry.outputs)):
        layer = rest.get_submodule(name) if has_submodule(rest, name) else None
        if getattr(layer, "out_features", getattr(layer, "out_channels", None)) != num_classes:
            continue
        if isinstance(layer, nn.Conv2d | nn.Linear) and isinstance(layer._parameters.get("weight"), nn.Parameter):
            set_num_outputs(layer, num_outputs)
            return
    raise ValueError(
        f"the last layer of {dry.network} is no linear layer or convolution with an output for every class"
    )


def set_num_outputs(layer: nn.Conv2d | nn.Linear, num_outputs: int) -> None:
    """Draws new weights as widely as the layer's own; with deviation 1 / sqrt(inputs) where these are all zero."""
    old = layer.weight.detach()
    std = old.std() if old.any() else old[0].numel() ** -0.5
    layer.weight = nn.Parameter(torch.randn_like(old[:1].expand(num_outputs, *old.shape[1:])) * std)
    if layer.bias is not None:
        layer.bias = nn.Parameter(old.new_zeros(num_outputs))
    setattr(layer, "out_features" if isinstance(layer, nn.Linear) else "out_channels", num_outputs)
