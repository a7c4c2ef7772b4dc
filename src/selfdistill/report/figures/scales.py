"""Scales and their ticks."""

import math
import sys
from collections.abc import Iterable
from typing import NamedTuple

from ..elements import Number

SAME = 1e-6  # times the largest value; values that differ by less are drawn as equal


class Scale(NamedTuple):
    """Maps values from [low, high] to pixels from `start` to `end`."""

    low: Number
    high: Number
    start: Number
    end: Number

    def __call__(self, value: Number) -> Number:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[Number]:
        return choose_ticks(self.low, self.high, count)


def fit_scale(values: Iterable[Number], start: Number, end: Number, *, margin: Number = 0.05) -> Scale:
    """A scale over the finite values, with a margin as a share of their range on both sides; [0, 1] without any."""
    known = [value for value in values if math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    largest = max(abs(low), abs(high))
    is_spread = high - low > SAME * largest
    pad = margin * (high - low) if is_spread else max(largest / 20, 5e-4)
    return Scale(low - pad, high + pad, start, end)


def choose_ticks(low: Number, high: Number, count: int = 5) -> list[Number]:
    """About `count` round values in [low, high], in steps of 1, 2 or 5 times a power of ten.

    >>> choose_ticks(0, 10), choose_ticks(88.2, 95.1, 4)
    ([0.0, 2.0, 4.0, 6.0, 8.0, 10.0], [90.0, 92.0, 94.0])
    >>> choose_ticks(0.0, 5e-324)
    [0.0]
    """
    rough = max((high - low) / count, sys.float_info.min)  # of the smallest ranges, the quotient would be 0
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((1, 2, 5, 10), key=lambda factor: abs(factor * power - rough)) * power
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step + 0.0 for number in range(first, last + 1)]


def format_ticks(ticks: list[Number]) -> list[str]:
    """The ticks as text, all with as many decimals as their step needs.

    >>> format_ticks([0.0, 0.5, 1.0]), format_ticks([0.0, 20000.0]), format_ticks([0.0, 1e-5])
    (['0', '0.5', '1'], ['0', '20k'], ['0', '1e-05'])
    """
    largest = max(map(abs, ticks), default=0.0)
    if largest >= 10_000:
        return [f"{tick / 1000:g}k" if tick else "0" for tick in ticks]
    if largest < 1e-3:
        return [f"{tick:.3g}" for tick in ticks]
    step = ticks[1] - ticks[0] if len(ticks) > 1 else largest or 1
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    texts = [f"{tick:.{decimals}f}" for tick in ticks]
    return [text.rstrip("0").rstrip(".") if "." in text and float(text) == int(float(text)) else text for text in texts]
