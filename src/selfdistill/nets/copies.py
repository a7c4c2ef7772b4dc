"""Fresh copies of what a student runs behind one of its feature maps, for any network whose stages run in a row.

The network is not taken apart: a copy of it is made in which whatever ran up to that map passes its input on, so that
the copy's own `forward` does the rest, functional operations and all. Before its weights are drawn anew the copy must
repeat the student's scores from the student's map; a network with another flow than stage after stage fails there.
"""

import copy
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..dryrun import DryRun, agree
from ..layouts import Layout
from ..stages import Output
from ..taps import Tap, Taps

NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)
POOLS = (nn.MaxPool2d, nn.AvgPool2d)
PROJECTIONS = ("shortcut", "downsample")  # what residual networks call a shortcut that changes the shape


class RemainingStages(nn.Module):
    """A feature map as `Taps` gives it -> scores (b, k), by way of a map of the deepest stage."""

    def __init__(self, entry: nn.Module, rest: nn.Module, deepest: str, layouts: tuple[Layout, Layout]) -> None:
        super().__init__()
        self.entry, self.rest = entry, rest
        self.layout, self.deepest_layout = layouts
        self._kept: list[Tensor] | None = None  # a list while `with_map` is under way
        rest.get_submodule(deepest).register_forward_hook(self._keep)

    def forward(self, feature: Float[Tensor, "b c h w"]) -> Float[Tensor, "b k"]:
        """The scores alone."""
        return self.rest(self.layout.from_map(self.entry(feature)))

    def with_map(self, feature: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b d y x"]]:
        """The scores and the deepest stage's map."""
        self._kept = kept = []
        try:
            scores = self(feature)
        finally:
            self._kept = None
        return scores, self.deepest_layout.to_map(kept[-1])

    def _keep(self, module: nn.Module, args: Any, output: Tensor) -> None:
        if self._kept is not None:
            self._kept.append(output)


class Pass(nn.Module):
    """Hands its first argument on."""

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
    dry = DryRun(taps.student, taps.image_shape)
    start = names[level - 1] if again else names[level]
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
    rest = _bare_copy(dry.student)
    if start in dry.outputs:
        for name in _finished(list(dry.outputs), start):
            rest.set_submodule(name, Pass())
        with torch.no_grad():
            true = _runs(lambda: agree(rest.eval()(dry.outputs[start].value), dry.logits))
    if start not in dry.outputs or not true:
        raise ValueError(
            f"{dry.kind} cannot be run from {start!r} on, as its scores do not follow from that map alone; copies of "
            f"the remaining stages need a network whose stages run one after another: take another, or other taps"
        )
    _freeze_idle(rest, dry.outputs[start].value)
    return rest.train()


def redrawn(module: nn.Module) -> nn.Module:
    """The module itself, as if new: weight matrices drawn from N(0, their own variance), biases 0, norms reset.

    So the copy starts as its network does, whatever initialisation that chose.
    """
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, NORMS):
                part.reset_parameters()
                continue
            for parameter in part.parameters(recurse=False):
                if parameter.ndim > 1:
                    parameter.normal_(std=float(parameter.std()))
            if isinstance(part, nn.Conv2d | nn.Linear) and part.bias is not None:
                part.bias.zero_()
    return module


def without_strides(
    rest: nn.Module, stage: dict[str, Output], tap: Tap, channels: int, layout: Layout
) -> tuple[nn.Module, nn.Module]:
    """An entry, and `rest` with its `stage` (outputs of submodules) keeping the size of `tap`, its new input.

    A first block that changes the shape gives way to a copy of the second, which does not. Else convolutions lose
    their strides and take the channels that come, inverted residuals as many times more as before, and projections of
    shortcuts, now idle, are left out. Where the stage cannot take other `channels` than it did, the entry is a 1x1
    convolution to these, with batch norm.
    """
    dtype = next(rest.parameters()).dtype
    own, former = (layout.from_map(torch.rand(2, width, *tap.size, dtype=dtype)) for width in (tap.channels, channels))
    failure: Exception | None = None
    for twins, expands, given in ((True, False, own), (False, True, own), (False, False, own), (False, False, former)):
        net = copy.deepcopy(rest)
        try:
            net = _fitted(_with_twins(net, stage) if twins else net, stage, given, expands=expands)
        except Exception as error:  # other people's code
            failure = error
            continue
        narrow = nn.Sequential(nn.Conv2d(tap.channels, channels, 1, bias=False), nn.BatchNorm2d(channels)).to(dtype)
        return (nn.Identity() if given is own else narrow), net
    raise ValueError(f"the last stage of {type(rest).__name__} cannot be run once more without strides") from failure


def _fitted(net: nn.Module, stage: dict[str, Output], given: Tensor, *, expands: bool) -> nn.Module:
    """`net`, whose layers in `stage` are changed to take `given` and its heirs without striding.

    With `expands` the wide middle of an inverted residual follows its input.
    """
    inside = [net.get_submodule(name) for name in stage if _has(net, name)]
    layers = [module for module in inside if not any(module.children())]
    wide = _expansions(layers) if expands else []
    hooks = [layer.register_forward_pre_hook(functools.partial(_fit, wide)) for layer in layers]
    try:
        with torch.no_grad():
            net.eval()(given)
    finally:
        for hook in hooks:
            hook.remove()
    for name in [name for name in reversed(stage) if name.rpartition(".")[2] in PROJECTIONS and _has(net, name)]:
        shorter = copy.deepcopy(net)
        shorter.set_submodule(name, nn.Identity())
        with torch.no_grad():
            net = net if _runs(functools.partial(shorter, given)) is False else shorter
    return net.train()


def _expansions(layers: list[nn.Module]) -> list[nn.Module]:
    """The 1x1 convolutions that a depthwise one follows; `layers` are in running order."""
    convs = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    return [a for a, b in zip(convs, convs[1:], strict=False) if b.groups == b.in_channels == a.out_channels > a.groups]


def _fit(wide: list[nn.Module], module: nn.Module, args: tuple[Any, ...]) -> None:
    """Changes a layer in place so that it takes its input and keeps its size; those in `wide` widen with it."""
    channels, last = args[0].shape[1], args[0].shape[-1]
    if isinstance(module, nn.Conv2d):
        if max(module.stride) > 1:
            _set_stride_one(module)
        if channels != module.in_channels:
            if module in wide:
                module.out_channels = module.out_channels * channels // module.in_channels
            _set_channels(module, channels)
    elif isinstance(module, nn.Linear) and last != module.in_features:
        _replace(module, nn.Linear(last, module.out_features, module.bias is not None), "in_features")
    elif isinstance(module, nn.modules.batchnorm._BatchNorm) and channels != module.num_features:
        _replace(module, nn.BatchNorm2d(channels), "num_features")
    elif isinstance(module, nn.LayerNorm) and module.normalized_shape[0] not in (channels, last):
        _replace(module, nn.LayerNorm(channels if type(module) is not nn.LayerNorm else last), "normalized_shape")
    elif isinstance(module, POOLS):
        module.kernel_size = module.stride = 1
        module.padding = 0


def _replace(module: nn.Module, new: nn.Module, *shape: str) -> None:
    """Gives a layer, of whatever subclass, the weights, buffers and shape of a `new` one."""
    module._parameters.update(new._parameters)
    module._buffers.update(new._buffers)
    for name in shape:
        setattr(module, name, getattr(new, name))


def _set_stride_one(conv: nn.Conv2d) -> None:
    if conv.kernel_size == conv.stride:  # patches, which one position each replaces
        conv.weight = nn.Parameter(conv.weight[:, :, :1, :1].contiguous())
        conv.kernel_size = (1, 1)
    conv.stride = (1, 1)


def _set_channels(conv: nn.Conv2d, channels: int) -> None:
    """New input channels, and as many outputs where the convolution is depthwise."""
    if conv.groups == conv.in_channels == conv.out_channels:
        conv.groups = conv.out_channels = channels
    conv.in_channels = channels
    shape = (conv.out_channels, channels // conv.groups, *conv.kernel_size)
    conv.weight = nn.Parameter(torch.randn(shape, dtype=conv.weight.dtype) * conv.weight.std())


def _with_twins(net: nn.Module, stage: dict[str, Output]) -> nn.Module:
    """`net` with a stage's first block, where it changes the shape and the second does not, replaced by its twin."""
    replaced: list[str] = []
    for container in ("", *reversed(stage)):  # outermost first
        if not _has(net, container) or any(f"{container}.".startswith(f"{done}.") for done in replaced):
            continue
        blocks = [f"{container}.{name}".lstrip(".") for name, _ in net.get_submodule(container).named_children()][:2]
        if len(blocks) == 2 and set(blocks) <= stage.keys() and _are_twins(*(stage[name] for name in blocks)):
            net.set_submodule(blocks[0], copy.deepcopy(net.get_submodule(blocks[1])))
            replaced.append(blocks[0])
    return net


def _are_twins(first: Output, second: Output) -> bool:
    blocks = type(first.module) is type(second.module) and any(second.module.children())
    keeps = [tuple(block.given) == tuple(block.value.shape) for block in (first, second)]
    return blocks and keeps == [False, True]


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


def _bare_copy(student: nn.Module) -> nn.Module:
    """A deep copy without the hooks that taps have placed."""
    bare = copy.deepcopy(student)
    for module in bare.modules():
        for key, hook in list(module._forward_hooks.items()):
            if isinstance(getattr(getattr(hook, "func", None), "__self__", None), Taps):
                del module._forward_hooks[key]
    return bare


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
    for name, output in reversed(list(dry.outputs.items())):
        if not _has(rest, name):
            continue
        new = _widened(rest.get_submodule(name), output, num_classes, num_outputs)
        if new is not None:
            rest.set_submodule(name, new)
            return
    raise ValueError(f"the last layer of {dry.kind} is no linear layer or convolution with an output for every class")


def _widened(layer: nn.Module, output: Output, num_classes: int, num_outputs: int) -> nn.Module | None:
    """A layer like the classifier `layer` with other outputs; None where it is no classifier."""
    if isinstance(layer, nn.Linear) and layer.out_features == num_classes:
        return nn.Linear(layer.in_features, num_outputs, bias=layer.bias is not None)
    if isinstance(layer, nn.Conv2d) and layer.out_channels == num_classes:
        return nn.Conv2d(layer.in_channels, num_outputs, layer.kernel_size, bias=layer.bias is not None)
    return None


def _has(net: nn.Module, name: str) -> bool:
    return name in dict(net.named_modules(remove_duplicate=False))


def _runs(call: Callable[[], Any]) -> Any:
    """What a call returns, or False where it raises."""
    try:
        return call()
    except Exception:  # other people's code
        return False
