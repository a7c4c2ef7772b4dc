"""Equality of state dicts, bit for bit."""

import torch


def same_states(first, second):
    first, second = first.state_dict(), second.state_dict()
    assert first.keys() == second.keys()
    return all(same(first[key], second[key]) for key in first)


def same(first, second):
    """Whether two values of a state dict are equal, bit for bit."""
    if isinstance(first, torch.Tensor):
        return first.shape == second.shape and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(value, second[key]) for key, value in first.items())
    if isinstance(first, tuple | list):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second
