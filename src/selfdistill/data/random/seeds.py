"""Seeds that depend on their purpose, not on the time of drawing."""

import hashlib
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive(*parts: int) -> int:
    """Hashes integers to a 64-bit seed, the same on every machine.

    >>> derive(0, 1) == derive(0, 1), derive(0, 1) == derive(1, 0)
    (True, False)
    """
    digest = hashlib.blake2b(struct.pack(f"<{len(parts)}q", *parts), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def create_generator(*parts: int) -> torch.Generator:
    """Creates a torch generator seeded with `derive(*parts)`."""
    return torch.Generator().manual_seed(derive(*parts))


@contextmanager
def isolate_generators() -> Iterator[Callable[[int], None]]:
    """Yields `seed(number)` for the global generators of torch (CPU), random and numpy; restores them at the end.

    Saving and restoring the states takes 0.3 ms, so use one `with` per batch.
    """
    torch_state, random_state, numpy_state = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        yield _seed
    finally:
        np.random.set_state(numpy_state)
        random.setstate(random_state)
        torch.set_rng_state(torch_state)


def _seed(number: int) -> None:
    torch.default_generator.manual_seed(number)
    random.seed(number)
    np.random.seed(number % 2**32)
