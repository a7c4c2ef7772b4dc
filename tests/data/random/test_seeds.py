"""Generators of one's own."""

import random

import numpy as np
import pytest
import torch

from selfdistill.data.random.seeds import isolate_generators


def seeded() -> None:
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)


def drawn() -> tuple[float, float, float]:
    return torch.rand(()).item(), random.random(), np.random.rand()


def test_private_generators_leave_the_global_ones_as_they_were():
    seeded()
    expected = drawn(), drawn()
    seeded()
    inside = []
    for number in (1, 1, 2):
        with isolate_generators() as seed:
            seed(number)
            inside.append(drawn())
    assert inside[0] == inside[1] and not set(inside[0]) & set(inside[2])
    assert drawn() == expected[0]
    with pytest.raises(KeyError), isolate_generators() as seed:
        seed(2**64 - 1)
        drawn()
        raise KeyError
    assert drawn() == expected[1]
