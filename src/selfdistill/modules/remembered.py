"""Tables of what a method remembers of every training image, by its index in the training set.

Large tables are kept in half precision, and a run has one checkpoint with them instead of two. Small ones are not: the
checkpoint is then mostly the network, and a second one costs little.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn

LARGE = 2**26  # numbers in a table: 256 MiB in single precision


def register_table(method: nn.Module, name: str, *shape: int) -> None:
    """Adds a buffer of zeros whose rows belong to the training images, for probabilities.

    Numbers are of torch's default type, at least float32, or float16 in tables of `LARGE` numbers and more. Rounding to
    float16 moves a probability by at most a 2000th of itself, or by 3e-8 if that is more; bfloat16 would move it by a
    250th. Memory is taken once rows are written. Raises `ValueError` for a table that cannot fit.
    """
    large = math.prod(shape) >= LARGE
    dtype = torch.float16 if large else torch.promote_types(torch.get_default_dtype(), torch.float32)
    try:
        # torch.zeros would write, and so take the memory
        zeros = np.zeros(shape, torch.empty(0, dtype=dtype).numpy().dtype)
    except (MemoryError, ValueError):
        size = math.prod(shape) * dtype.itemsize / 2**30
        raise ValueError(
            f"{type(method).__name__} remembers {size:.3g} GiB of {shape[0]} images, more than this machine has; take "
            "fewer images or another method"
        ) from None
    method.register_buffer(name, torch.from_numpy(zeros))


def is_large(table: Tensor) -> bool:
    """Whether a run keeps one checkpoint with a table."""
    return table.numel() >= LARGE


def recall(table: Tensor, index: Tensor, otherwise: Tensor) -> Tensor:
    """The rows of a batch in the type of `otherwise`, which stands in for images not seen yet: rows of zeros."""
    rows = table[index].to(otherwise.dtype)
    return torch.where(rows.sum(dim=-1, keepdim=True) > 0, rows, otherwise)


def compute_dtype(table: Tensor) -> torch.dtype:
    """The type to compute with: float32 for a table in half precision, else the table's own."""
    return torch.float32 if table.dtype == torch.float16 else table.dtype
