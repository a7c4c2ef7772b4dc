"""The global generators of torch, Python and numpy, which nothing but the user may move."""

import random

import numpy as np
import torch


def seed_generators() -> None:
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)


def draw_from_generators() -> tuple[float, float, float]:
    return torch.rand(()).item(), random.random(), np.random.rand()
