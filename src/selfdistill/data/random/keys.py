"""Random numbers for whole batches on any device, from a counter-based generator.

A key is an int64 of 64 random bits. `branch` derives keys from a key; `uniform` and `normal` derive numbers from it.
They are the outputs of SplitMix64 started at the key. So the draws of an image depend on its key only: not on its
position in the batch, not on other images, and not on earlier draws. Source: Steele, Lea, Flood, 2014, figure 17,
https://doi.org/10.1145/2714064.2660195
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def _to_int64(number: int) -> int:
    """The int64 with the same 64 bits. Integer tensors overflow as the hash needs; Python integers do not."""
    return (number + 2**63) % 2**64 - 2**63


GAMMA = _to_int64(0x9E3779B97F4A7C15)
ROUNDS = ((30, _to_int64(0xBF58476D1CE4E5B9)), (27, _to_int64(0x94D049BB133111EB)))
LAST = 31


def derive_keys(seeds: list[int], numbers: Int64[Tensor, " n"]) -> Int64[Tensor, "s n"]:
    """One key for each 64-bit seed and each number."""
    start = torch.tensor([_to_int64(seed) for seed in seeds], device=numbers.device)
    return branch(start[:, None], numbers)


def branch(keys: Int64[Tensor, "*n"], number: int | Int64[Tensor, "*m"]) -> Int64[Tensor, "*nm"]:
    """Derives key `number` (from 0) of each key; both are broadcast against each other."""
    step = (number + 1) * GAMMA
    return _mix_bits(keys + (step if isinstance(step, Tensor) else _to_int64(step)))


def _mix_bits(bits: Int64[Tensor, "*n"]) -> Int64[Tensor, "*n"]:
    for shift, factor in ROUNDS:
        bits = (bits ^ _shift_right(bits, shift)) * factor
    return bits ^ _shift_right(bits, LAST)


def _shift_right(bits: Int64[Tensor, "*n"], by: int) -> Int64[Tensor, "*n"]:
    """Shifts to the right and fills with zeros; the shift of signed integers would copy the sign."""
    return (bits >> by) & (2 ** (64 - by) - 1)


def uniform(keys: Int64[Tensor, " n"], count: int) -> Float[Tensor, "{count} n"]:
    """Draws `count` numbers for each key: multiples of 2^-24 in [0, 1), the same on every device."""
    numbers = torch.arange(count, device=keys.device)
    return _shift_right(branch(keys, numbers[:, None]), 40).float() * 2.0**-24


def to_integers(numbers: Float[Tensor, "*n"], bounds: int | Int64[Tensor, "*n"]) -> Int64[Tensor, "*n"]:
    """Uniform integers in [0, bounds) from numbers uniform in [0, 1)."""
    return (numbers * bounds).long()


def normal(keys: Int64[Tensor, " n"], shape: tuple[int, ...]) -> Float[Tensor, " n *shape"]:
    """Draws standard normal numbers of this shape for each key."""
    numbers = torch.arange(torch.Size(shape).numel(), device=keys.device)
    middles = (_shift_right(branch(keys[:, None], numbers), 41).float() + 0.5) * 2.0**-23  # never 0 nor 1, exactly
    return torch.special.ndtri(middles).reshape(-1, *shape)
