"""Manifold mixup for a network given as the functions that it runs one after another.

The network is stopped at the layer, its rows are mixed one by one, and it goes on from there; `layer` 0 is before the
first function.
"""

import math

import torch


def blended(rows, order, weight):
    return torch.stack([weight * row + (1 - weight) * rows[other] for row, other in zip(rows, order, strict=True)])


def scores(functions, images, *, layer, weight, order):
    state = images
    for number, function in enumerate(functions):
        if number == layer:
            state = blended(state, order, weight)
        state = function(state)
    return state


def cross_entropy(logits, target, *, weight, order):
    """Against labels of which each is a share `weight` of its own class and a share of the other row's."""
    total = 0.0
    for row, (values, label) in enumerate(zip(logits, target, strict=True)):
        log_sum = math.log(sum(math.exp(value) for value in values))
        mixed = [0.0] * len(values)
        mixed[label] += weight
        mixed[target[order[row]]] += 1 - weight
        total -= sum(share * (value - log_sum) for share, value in zip(mixed, values, strict=True))
    return total / len(target)
