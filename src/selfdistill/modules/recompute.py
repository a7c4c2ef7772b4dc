"""Maps that the backward pass computes again, where keeping them would cost more than computing them.

For its backward pass autograd keeps what each operation needs: a ReLU its output, a convolution its input. Inside
`recompute_maps` it keeps, in place of a map that was given to `remember`, how to compute the map again. The gradients
are still torch's own, so a second derivative, frozen layers and autocast need nothing here. Unlike checkpointing, this
runs no layer twice: running statistics move once. torch.func refuses such maps in a sentence of its own.
"""

import contextlib
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from .processor import has_tiles

Source = Callable[[], Tensor]  # returns a map, computed again or kept


class Recomputed:
    """The result of `compute`, from when it is first asked for until it is taken."""

    def __init__(self, compute: Callable[[], Any]) -> None:
        self.compute = compute
        self.result: Any = None

    def __call__(self) -> Any:
        if self.result is None:
            self.result = self.compute()
        return self.result

    def take(self) -> Any:
        """The result, which is computed anew if it is asked for again; None if nothing has asked for it yet."""
        result, self.result = self.result, None
        return result


class Kept:
    """A tensor as it is. Like autograd, refuses one that was changed in place in the meantime."""

    def __init__(self, tensor: Tensor) -> None:
        # Only a map needs `detach`: changed in place later, it would come to hold the very node that holds it.
        self.tensor, self.version = tensor if tensor.is_leaf else tensor.detach(), tensor._version

    def __call__(self) -> Tensor:
        if self.tensor._version != self.version:
            raise RuntimeError(
                f"a tensor of shape {list(self.tensor.shape)}, which the backward pass of a self-teacher needs, was "
                "changed in place after the forward pass; call backward before changing it"
            )
        return self.tensor


class Remembered(saved_tensors_hooks):
    """While it is entered, autograd keeps how to compute the maps that are known here, instead of the maps."""

    def __init__(self) -> None:
        super().__init__(self.pack, unpack)
        # By storage, because autograd keeps aliases. A weak reference keeps another storage from taking its address.
        self.known: dict[int, tuple[StorageWeakRef, int, Source]] = {}
        self.units: dict[tuple[int, torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    def __enter__(self) -> None:
        self.token = active.set(self)
        super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        active.reset(self.token)
        self.known.clear()
        self.units.clear()

    def find(self, tensor: Tensor) -> Source | None:
        """How to compute the tensor's storage again; None if that is not known, or the tensor was changed since."""
        known = self.known.get(tensor.untyped_storage()._cdata)
        return None if known is None or known[1] != tensor._version else known[2]

    def add(self, tensor: Tensor, source: Source) -> None:
        storage = tensor.untyped_storage()
        self.known[storage._cdata] = StorageWeakRef(storage), tensor._version, source

    def get_unit(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The mean 0 and the variance 1 of so many channels; made once, as a GPU starts a kernel for each."""
        key = len(like), like.dtype, like.device
        if key not in self.units:
            self.units[key] = torch.zeros_like(like), torch.ones_like(like)
        return self.units[key]

    def pack(self, tensor: Tensor) -> Source:
        source = self.find(tensor)
        if source is None:
            return Kept(tensor)
        size, stride, offset = tensor.size(), tensor.stride(), tensor.storage_offset()
        return lambda: source().as_strided(size, stride, offset)


active: ContextVar[Remembered | None] = ContextVar("active", default=None)


def unpack(source: Source) -> Tensor:
    if isinstance(source, Kept) or not torch.is_grad_enabled():  # entering `no_grad` takes longer than either
        return source()
    with torch.no_grad():
        return source()


def recompute_maps() -> contextlib.AbstractContextManager[None]:
    """Within it, `remember` and what builds on it take effect. Under torch.compile nothing does: it has its own way."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled():
        return contextlib.nullcontext()
    return Remembered()


def find_active() -> Remembered | None:
    return None if torch.compiler.is_compiling() else active.get()


def remember(tensor: Tensor, compute: Source) -> Tensor:
    """The tensor itself, an operation's output. `compute` gives it again, as a fresh tensor with equal strides."""
    remembered = find_active()
    if remembered is not None:
        remembered.add(tensor, compute)
    return tensor


def source_of(tensor: Tensor) -> Source:
    """Where the backward pass gets the tensor from: computed again if it is known how, else kept."""
    remembered = find_active()
    return (remembered and remembered.find(tensor)) or Kept(tensor)


def rectify(x: Tensor, *, keep: bool = False) -> Tensor:
    """ReLU, in place where that is not slower, unless `x` is to be kept; nothing may use `x` afterwards otherwise.

    Where it is known how to compute `x` again, so is the result, which is not kept then.
    """
    relu = F.relu if keep or slow_in_place(x) else F.relu_
    remembered = find_active()
    source = remembered and remembered.find(x)
    if not source:
        return relu(x)
    again = Recomputed(lambda: relu(source()))

    def find_signs() -> Tensor:
        # The ReLU's own backward pass comes last. It asks which outputs are positive, which its inputs tell as well.
        result = again.take()
        return source() if result is None else result

    with saved_tensors_hooks(lambda result: find_signs, unpack):
        return remember(relu(x), again)


def slow_in_place(x: Tensor) -> bool:
    """Whether a ReLU in place takes longer than one that writes a new map: in bfloat16 on CPUs with AMX.

    Milliseconds for 16 MiB of bfloat16, out of place and in place: 4.8 and 8.4 on a Xeon with AMX, 1.51 and 1.46 on an
    AMD EPYC, which takes 2.8 and 1.4 in float32. A new map costs FRSKD's peak around a ResNet-18 a twentieth.
    """
    return x.device.type == "cpu" and x.dtype is torch.bfloat16 and has_tiles()


def pool(operation: Callable[..., Any], x: Tensor, *settings: Any, **options: Any) -> Tensor:
    """A max pooling that keeps neither its output nor the positions of the maxima: it pools again instead."""
    remembered = find_active()
    if remembered is None:
        return operation(x, *settings, **options)
    source = source_of(x)
    again = Recomputed(lambda: operation(source(), *settings, **options, return_indices=True))

    def find_positions() -> Tensor:
        positions, _ = again()[1], again.take()  # the pooling's own backward pass comes last
        return positions

    def pack(tensor: Tensor) -> Source:
        return remembered.pack(tensor) if tensor.is_floating_point() else find_positions

    with saved_tensors_hooks(pack, unpack):
        return remember(operation(x, *settings, **options), lambda: again()[0])
