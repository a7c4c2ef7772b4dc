"""The last stage of a network once more, without its strides: the branch behind a network's deepest map."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from ..features.extractor import Tap
from ..features.hooks import Hooks
from ..features.layouts import Layout
from ..features.stages import Output

POOLS = (nn.MaxPool2d, nn.AvgPool2d)
PROJECTIONS = ("shortcut", "downsample")  # what residual networks call a shortcut that changes the shape


def copy_without_strides(
    rest: nn.Module, stage: dict[str, Output], tap: Tap, channels: int, layout: Layout
) -> tuple[nn.Module, nn.Module]:
    """An entry, and a copy of `rest` whose `stage` (outputs of submodules) keeps the size of its new input, `tap`.

    A first block that changes the shape is replaced by a copy of the second, which does not. Otherwise convolutions
    lose their strides and take the channels that they are given, inverted residuals widen them as many times as before,
    and projections of shortcuts, which have nothing left to do, are left out. Where the stage cannot take other
    `channels` than before, the entry is a 1x1 convolution to these, with batch norm. Raises `ValueError` where all of
    this fails.
    """
    like = next(rest.parameters())
    new_input, old_input = (layout.from_map(like.new_ones(2, width, *tap.size)) for width in (tap.channels, channels))
    for replaces_first_block, widens, stage_input in (
        (True, False, new_input),
        (False, True, new_input),
        (False, False, new_input),
        (False, False, old_input),
    ):
        network = copy.deepcopy(rest)
        try:
            if replaces_first_block:
                replace_first_blocks(network, stage)
            network = remove_strides(network, stage, stage_input, widens=widens)
        except Exception:  # other people's code
            continue
        projection = nn.Sequential(nn.Conv2d(tap.channels, channels, 1, bias=False), nn.BatchNorm2d(channels)).to(like)
        return (nn.Identity() if stage_input is new_input else projection), network
    raise ValueError(f"the last stage of {type(rest).__name__} cannot be run once more without strides")


def remove_strides(network: nn.Module, stage: dict[str, Output], stage_input: Tensor, *, widens: bool) -> nn.Module:
    """`network` with the layers of `stage` changed to take `stage_input` and to keep its size.

    With `widens` the wide middle of an inverted residual widens with its input. Layers are adapted one at a time: the
    network runs until a layer does not fit its input, that layer gets new weights, and the network runs again.
    """
    modules = [network.get_submodule(name) for name in stage if has_submodule(network, name)]
    layers = [module for module in modules if not any(module.children())]
    for layer in layers:
        set_stride_one(layer)
    expansions = find_expansions(layers) if widens else []
    adapted: list[nn.Module] = []
    while misfit := first_misfit(network, layers, stage_input):
        layer, input_shape = misfit
        if layer in adapted:
            raise ValueError(f"a {type(layer).__name__} is given inputs of several widths")
        adapt_to_input(layer, input_shape, widens=layer in expansions)
        adapted.append(layer)
    return drop_idle_projections(network, stage, stage_input).train()


def first_misfit(
    network: nn.Module, layers: list[nn.Module], stage_input: Tensor
) -> tuple[nn.Module, torch.Size] | None:
    """The first of `layers` to run that does not fit the shape of its input, and that shape; None if all fit.

    Raises what the network raises where its layers fit.
    """
    calls: list[tuple[nn.Module, torch.Size]] = []
    try:
        with Hooks() as hooks, torch.no_grad():
            for layer in layers:
                hooks.on_input(layer, note_input, calls)
            network.eval()(stage_input)
    except Exception:  # other people's code
        if all(fits_input(layer, input_shape) for layer, input_shape in calls):
            raise
    return next(((layer, input_shape) for layer, input_shape in calls if not fits_input(layer, input_shape)), None)


def note_input(calls: list[tuple[nn.Module, torch.Size]], module: nn.Module, inputs: tuple[Any, ...]) -> None:
    """A hook: adds the module and the shape of its first input to `calls`."""
    calls.append((module, inputs[0].shape))


def fits_input(layer: nn.Module, input_shape: torch.Size) -> bool:
    """Whether a layer has the weights for an input of this shape."""
    channels, last = input_shape[1], input_shape[-1]
    if isinstance(layer, nn.Conv2d):
        return layer.in_channels == channels
    if isinstance(layer, nn.Linear):
        return layer.in_features == last
    if isinstance(layer, nn.modules.batchnorm._BatchNorm):
        return layer.num_features == channels
    return not isinstance(layer, nn.LayerNorm) or layer.normalized_shape[0] in (channels, last)


def adapt_to_input(layer: nn.Module, input_shape: torch.Size, *, widens: bool) -> None:
    """Gives a layer weights for an input of this shape; with `widens` a convolution has more outputs too."""
    channels, last = input_shape[1], input_shape[-1]
    if isinstance(layer, nn.Conv2d):
        if widens:
            layer.out_channels = layer.out_channels * channels // layer.in_channels
        set_in_channels(layer, channels)
    elif isinstance(layer, nn.Linear):
        take_weights(layer, nn.Linear(last, layer.out_features, layer.bias is not None), "in_features")
    elif isinstance(layer, nn.LayerNorm):
        width = last if type(layer) is nn.LayerNorm else channels  # subclasses norm the channels of maps
        take_weights(layer, nn.LayerNorm(width), "normalized_shape")
    else:
        take_weights(layer, nn.BatchNorm2d(channels), "num_features")


def take_weights(layer: nn.Module, new: nn.Module, size: str) -> None:
    """Gives a layer, of whatever subclass, the weights and buffers of a `new` one, and its attribute `size`."""
    for old in (*layer.parameters(), *layer.buffers()):
        if old.is_floating_point():
            new.to(old)
            break
    layer._parameters.update(new._parameters)
    layer._buffers.update(new._buffers)
    setattr(layer, size, getattr(new, size))


def set_in_channels(conv: nn.Conv2d, channels: int) -> None:
    """New input channels, and as many output channels where the convolution is depthwise."""
    if conv.groups == conv.in_channels == conv.out_channels:
        conv.groups = conv.out_channels = channels
    conv.in_channels = channels
    shape = (conv.out_channels, channels // conv.groups, *conv.kernel_size)
    conv.weight = nn.Parameter(torch.randn_like(conv.weight.new_empty(shape)) * conv.weight.detach().std())


def set_stride_one(layer: nn.Module) -> None:
    """Lets a convolution or a pooling keep the size of its input."""
    if isinstance(layer, POOLS):
        layer.kernel_size = layer.stride = 1
        layer.padding = 0
    elif isinstance(layer, nn.Conv2d) and max(layer.stride) > 1:
        if layer.kernel_size == layer.stride:  # patches: one position takes the place of each
            layer.weight = nn.Parameter(layer.weight[:, :, :1, :1].contiguous())
            layer.kernel_size = (1, 1)
        layer.stride = (1, 1)


def find_expansions(layers: list[nn.Module]) -> list[nn.Conv2d]:
    """The 1x1 convolutions that a depthwise one follows; `layers` are in running order."""
    convs = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    return [a for a, b in zip(convs, convs[1:], strict=False) if b.groups == b.in_channels == a.out_channels > a.groups]


def drop_idle_projections(network: nn.Module, stage: dict[str, Output], stage_input: Tensor) -> nn.Module:
    """The network without each projection of a shortcut that it can run without.

    Where the block tests for None it becomes None: such a block may give its projection another input than the sum, as
    a pre-activation block does. Elsewhere it becomes an identity.
    """
    for name in reversed(stage):
        container, _, projection = name.rpartition(".")
        if projection not in PROJECTIONS or not has_submodule(network, name):
            continue
        for nothing in (None, nn.Identity()):
            shorter = copy.deepcopy(network)
            setattr(shorter.get_submodule(container), projection, nothing)
            if can_run(shorter, stage_input):
                network = shorter
                break
    return network


def replace_first_blocks(network: nn.Module, stage: dict[str, Output]) -> None:
    """Replaces the first block of a stage by a copy of the second, where only the first changes the shape."""
    replaced: list[str] = []
    for container in ("", *reversed(stage)):  # outermost first
        if not has_submodule(network, container) or any(f"{container}.".startswith(f"{name}.") for name in replaced):
            continue
        children = [name for name, _ in network.get_submodule(container).named_children()]
        blocks = [f"{container}.{name}".lstrip(".") for name in children[:2]]
        if len(blocks) == 2 and set(blocks) <= stage.keys() and only_first_changes_shape(*(stage[b] for b in blocks)):
            network.set_submodule(blocks[0], copy.deepcopy(network.get_submodule(blocks[1])))
            replaced.append(blocks[0])


def only_first_changes_shape(first: Output, second: Output) -> bool:
    """Whether two blocks of one class differ in that the first changes the shape of its input."""
    if type(first.module) is not type(second.module) or not any(second.module.children()):
        return False
    changes = [tuple(block.input_shape) != tuple(block.value.shape) for block in (first, second)]
    return changes == [True, False]


def has_submodule(network: nn.Module, name: str) -> bool:
    """Whether the network has a submodule of this name; "" is the network itself."""
    try:
        network.get_submodule(name)
    except AttributeError:
        return False
    return True


def can_run(network: nn.Module, network_input: Tensor) -> bool:
    """Whether the network runs on an input without an error."""
    try:
        with torch.no_grad():
            network(network_input)
    except Exception:  # other people's code
        return False
    return True
