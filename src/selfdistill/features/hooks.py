"""Hooks on a network's submodules that are removed when their owner is closed or collected."""

import copy
import weakref
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle


class Hook:
    """Calls `function(*args, module, inputs)`, or `function(*args, module, inputs, output)` after the forward pass.

    A class of its own, so that our hooks can be told from the user's.
    """

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.function, self.args = function, args

    def __call__(self, *call: Any) -> Any:
        return self.function(*self.args, *call)


class Hooks:
    """Owns hooks on a network. They are removed by `close`, at the end of a `with` block, or when it is collected.

    What a hook calls must not refer to its `Hooks`, nor to an owner of it: such a circle would keep the hooks in place
    until Python's garbage collector finds it. A deep copy or a pickle that holds the network too gets hooks of its own.
    """

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []
        self.closed = False
        self._remove_when_collected()

    def on_output(self, module: nn.Module, function: Callable[..., Any], *args: Any) -> None:
        """Calls `function(*args, module, inputs, output)` after each forward pass; a result replaces the output."""
        self._handles.append(module.register_forward_hook(Hook(function, *args)))

    def on_input(self, module: nn.Module, function: Callable[..., Any], *args: Any) -> None:
        """Calls `function(*args, module, inputs)` before each forward pass; a result replaces the inputs."""
        self._handles.append(module.register_forward_pre_hook(Hook(function, *args)))

    def close(self) -> None:
        """Removes the hooks. May be called more than once."""
        self.closed = True
        self._finalizer()

    def __enter__(self) -> "Hooks":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _remove_when_collected(self) -> None:
        self._finalizer = weakref.finalize(self, remove, self._handles)
        self._finalizer.atexit = False

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_finalizer"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._remove_when_collected()


def remove(handles: list[RemovableHandle]) -> None:
    """Removes the hooks, and empties the list."""
    while handles:
        handles.pop().remove()


class Recorder(Hooks):
    """Records what submodules are given or return during one call of the network.

    Between calls the hooks do nothing. They stay in place because placing them in every call would break the graph of
    torch.compile.
    """

    def __init__(self) -> None:
        super().__init__()
        self._records = Records()

    def record_output(self, module: nn.Module, key: Any) -> None:
        """From now on, records the module's output under `key`."""
        self.on_output(module, self._records.add_output, key)

    def record_input(self, module: nn.Module, key: Any) -> None:
        """From now on, records the module's first input under `key`; a copy where the module works in place."""
        self.on_input(module, self._records.add_input, key)

    def record(self, network: Callable[..., Any], *inputs: Any) -> tuple[Any, dict[Any, Any]]:
        """What `network(*inputs)` returns, and the records by key. Of several calls of a module, the last counts.

        Raises `RuntimeError` once the recorder is closed.
        """
        if self.closed:
            raise RuntimeError("the hooks were removed when this recorder was closed; make a new one")
        self._records.values = values = {}
        try:
            output = network(*inputs)
        finally:
            self._records.values = None
        return output, values


class Records:
    """What one call records. The hooks refer to this object alone."""

    def __init__(self) -> None:
        self.values: dict[Any, Any] | None = None  # a dict during a call

    def add_output(self, key: Any, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if self.values is not None:
            self.values[key] = output

    def add_input(self, key: Any, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self.values is not None:
            self.values[key] = inputs[0].clone() if getattr(module, "inplace", False) else inputs[0]


def copy_without_hooks(network: nn.Module) -> nn.Module:
    """A deep copy without any hook that a `Hooks` has placed; the user's own hooks are copied."""
    copied = copy.deepcopy(network)
    for module in copied.modules():
        for hooks in (module._forward_hooks, module._forward_pre_hooks):
            for key in [key for key, hook in hooks.items() if isinstance(hook, Hook)]:
                del hooks[key]
    return copied
