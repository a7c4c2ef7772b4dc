"""A stage once more, without its strides: what a branch behind a network's deepest map consists of."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..features.extractor import Tap
from ..features.hooks import Hooks
from ..features.layouts import Layout
from ..features.stages import Output

POOLS = (nn.MaxPool2d, nn.AvgPool2d)
PROJECTIONS = ("shortcut", "downsample")  # what residual networks call a shortcut that changes the shape


def without_strides(
    rest: nn.Module, stage: dict[str, Output], tap: Tap, channels: int, layout: Layout
) -> tuple[nn.Module, nn.Module]:
    """An entry, and `rest` with its `stage` (outputs of submodules) keeping the size of `tap`, its new input.

    A first block that changes the shape gives way to a copy of the second, which does not. Else convolutions lose
    their strides and take the channels that come, inverted residuals as many times more as before, and projections of
    shortcuts, now idle, are left out. Where the stage cannot take other `channels` than it did, the entry is a 1x1
    convolution to these, with batch norm.
    """
    like = next(rest.parameters())
    own, former = (layout.from_map(like.new_ones(2, width, *tap.size)) for width in (tap.channels, channels))
    failure: Exception | None = None
    for twins, expands, given in ((True, False, own), (False, True, own), (False, False, own), (False, False, former)):
        net = copy.deepcopy(rest)
        try:
            net = _fitted(_with_twins(net, stage) if twins else net, stage, given, expands=expands)
        except Exception as error:  # other people's code
            failure = error
            continue
        narrow = nn.Sequential(nn.Conv2d(tap.channels, channels, 1, bias=False), nn.BatchNorm2d(channels)).to(like)
        return (nn.Identity() if given is own else narrow), net
    raise ValueError(f"the last stage of {type(rest).__name__} cannot be run once more without strides") from failure


def _fitted(net: nn.Module, stage: dict[str, Output], given: Tensor, *, expands: bool) -> nn.Module:
    """`net`, whose layers in `stage` are changed to take `given` and its heirs without striding.

    With `expands` the wide middle of an inverted residual follows its input.
    """
    inside = [net.get_submodule(name) for name in stage if has(net, name)]
    layers = [module for module in inside if not any(module.children())]
    wide = _expansions(layers) if expands else []
    with Hooks() as hooks, torch.no_grad():
        for layer in layers:
            hooks.on_input(layer, _fit, wide)
        net.eval()(given)
    for name in [name for name in reversed(stage) if name.rpartition(".")[2] in PROJECTIONS and has(net, name)]:
        shorter = copy.deepcopy(net)
        shorter.set_submodule(name, nn.Identity())
        with torch.no_grad():
            net = net if runs(functools.partial(shorter, given)) is False else shorter
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
    conv.weight = nn.Parameter(torch.randn_like(conv.weight.new_empty(shape)) * conv.weight.detach().std())


def _with_twins(net: nn.Module, stage: dict[str, Output]) -> nn.Module:
    """`net` with a stage's first block, where it changes the shape and the second does not, replaced by its twin."""
    replaced: list[str] = []
    for container in ("", *reversed(stage)):  # outermost first
        if not has(net, container) or any(f"{container}.".startswith(f"{done}.") for done in replaced):
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


def has(net: nn.Module, name: str) -> bool:
    return runs(functools.partial(net.get_submodule, name)) is not False


def runs(call: Callable[[], Any]) -> Any:
    """What a call returns, or False where it raises."""
    try:
        return call()
    except Exception:  # other people's code
        return False
