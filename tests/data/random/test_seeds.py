"""Generators of one's own."""

import pytest

from helpers.generators import draw_from_generators, seed_generators
from selfdistill.data.random.seeds import isolate_generators


def test_private_generators_leave_the_global_ones_as_they_were():
    seed_generators()
    expected = draw_from_generators(), draw_from_generators()
    seed_generators()
    inside = []
    for number in (1, 1, 2):
        with isolate_generators() as seed:
            seed(number)
            inside.append(draw_from_generators())
    assert inside[0] == inside[1] and not set(inside[0]) & set(inside[2])
    assert draw_from_generators() == expected[0]
    with pytest.raises(KeyError), isolate_generators() as seed:
        seed(2**64 - 1)
        draw_from_generators()
        raise KeyError
    assert draw_from_generators() == expected[1]
