"""Random numbers that depend on what they are for, not on when they are drawn."""

import hashlib
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

# numpy's own generator is swapped for this one, which costs 0.4 us; saving and restoring its state costs 90 us
_SPARE = np.random.MT19937(0)


def derive(*parts: int) -> int:
    """A 64-bit seed that is a hash of integers; the same on every machine.

    >>> derive(0, 1) == derive(0, 1), derive(0, 1) == derive(1, 0)
    (True, False)
    """
    digest = hashlib.blake2b(struct.pack(f"<{len(parts)}q", *parts), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def generator(*parts: int) -> torch.Generator:
    """A torch generator seeded with `derive(*parts)`."""
    return torch.Generator().manual_seed(derive(*parts))


@contextmanager
def private_generators() -> Iterator[Callable[[int], None]]:
    """Yields `seed(number)`, for the global generators of torch (CPU), random and numpy; afterwards they are as before.

    Costs about 30 us with one call of `seed`.
    """
    torch_state, random_state = torch.default_generator.get_state(), random.getstate()
    numpy_generator = np.random.get_bit_generator()
    np.random.set_bit_generator(_SPARE)
    try:
        yield _seed
    finally:
        np.random.set_bit_generator(numpy_generator)
        random.setstate(random_state)
        torch.default_generator.set_state(torch_state)


def _seed(number: int) -> None:
    torch.default_generator.manual_seed(number)
    random.seed(number)
    np.random.seed(number % 2**32)
