"""Random numbers for whole batches, on any device: each is a hash of what it is for.

A key is an int64 of 64 random bits. `branch` makes keys of a key, `uniform` and `normal` numbers of it; they are the
outputs of SplitMix64 begun there. What an image draws so depends on its own key alone: not on its place in a batch, not
on the other images, not on what was drawn before. Source: Steele, Lea, Flood, 2014, figure 17,
https://doi.org/10.1145/2714064.2660195
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def _to_int64(number: int) -> int:
    """The int64 of the same 64 bits: integer tensors overflow as the hash wants it, Python's integers do not."""
    return (number + 2**63) % 2**64 - 2**63


GAMMA = _to_int64(0x9E3779B97F4A7C15)
ROUNDS = ((30, _to_int64(0xBF58476D1CE4E5B9)), (27, _to_int64(0x94D049BB133111EB)))
LAST = 31


def derive_keys(seeds: list[int], numbers: Int64[Tensor, " n"]) -> Int64[Tensor, "s n"]:
    """A key for each of some 64-bit seeds and each number."""
    start = torch.tensor([_to_int64(seed) for seed in seeds], device=numbers.device)
    return branch(start[:, None], numbers)


def branch(keys: Int64[Tensor, "*n"], number: int | Int64[Tensor, "*m"]) -> Int64[Tensor, "*nm"]:
    """The key with this number, from 0 on, of each of the keys; both are broadcast against each other."""
    step = (number + 1) * GAMMA
    return _mix_bits(keys + (step if isinstance(step, Tensor) else _to_int64(step)))


def _mix_bits(bits: Int64[Tensor, "*n"]) -> Int64[Tensor, "*n"]:
    for shift, factor in ROUNDS:
        bits = (bits ^ _shift_right(bits, shift)) * factor
    return bits ^ _shift_right(bits, LAST)


def _shift_right(bits: Int64[Tensor, "*n"], by: int) -> Int64[Tensor, "*n"]:
    """To the right, with zeros from the left: the shift of signed integers copies their sign."""
    return (bits >> by) & (2 ** (64 - by) - 1)


def uniform(keys: Int64[Tensor, " n"], count: int) -> Float[Tensor, "{count} n"]:
    """`count` numbers for each key: multiples of 2^-24 in [0, 1), the same ones on every device."""
    numbers = torch.arange(count, device=keys.device)
    return _shift_right(branch(keys, numbers[:, None]), 40).float() * 2.0**-24


def to_integers(numbers: Float[Tensor, "*n"], bounds: int | Int64[Tensor, "*n"]) -> Int64[Tensor, "*n"]:
    """Whole numbers in [0, bounds), each alike, of numbers uniform in [0, 1)."""
    return (numbers * bounds).long()


def normal(keys: Int64[Tensor, " n"], shape: tuple[int, ...]) -> Float[Tensor, "n *shape"]:
    """Numbers of this shape for each key, of mean 0 and deviation 1."""
    numbers = torch.arange(torch.Size(shape).numel(), device=keys.device)
    middles = (_shift_right(branch(keys[:, None], numbers), 41).float() + 0.5) * 2.0**-23  # never 0 nor 1, exactly
    return torch.special.ndtri(middles).reshape(-1, *shape)
