"""The global random generators, seeded anew for every micro-batch."""

import random

import numpy as np
import torch

from ..data.random.seeds import derive


def seed_generators(*parts: int) -> None:
    """Seeds torch's, Python's and numpy's global generators with a hash of `parts`."""
    seed = derive(*parts) % 2**32
    torch.default_generator.manual_seed(seed)  # torch.manual_seed also asks for devices that are not there: 70 us
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)
