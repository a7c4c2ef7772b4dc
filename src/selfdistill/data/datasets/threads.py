"""Reads many images in as many threads as are fastest."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

THREADS = 4
BLOCK = 256
FIRST, TIMED = 8, 32  # images of a first block, after which all is loaded, and of the second, which is timed
LONG = 3e-4  # processor seconds of an image that several threads decode faster than one
WAITING = 5  # times the processor time of an image that reading it took, where it is fetched from afar


def iterate_blocks(work: Callable[[Sequence[int]], Any], indices: Sequence[int]) -> Iterator[Any]:
    """Yields `work(block)` of blocks of indices, in order.

    A few threads share them where decoding takes long, which other threads need not wait for, or where images come from
    a slow disk. Small images are read by one thread: several take up to twice the processor time, as only one of them
    can run Python at a time.
    """
    starts = (0, FIRST, FIRST + TIMED)
    first, timed, rest = (indices[start:end] for start, end in zip(starts, (*starts[1:], None), strict=True))
    if first:
        yield work(first)
    if timed:
        started, busy = time.perf_counter(), time.thread_time()
        yield work(timed)
        seconds, busy = time.perf_counter() - started, time.thread_time() - busy
    if rest:
        is_worth = busy > LONG * len(timed) or seconds > WAITING * busy
        with ThreadPoolExecutor(THREADS if is_worth else 1) as pool:
            yield from pool.map(work, (rest[start : start + BLOCK] for start in range(0, len(rest), BLOCK)))


def map_blocks(work: Callable[[Sequence[int]], Any], indices: Sequence[int]) -> list[Any]:
    """All results of `iterate_blocks`."""
    return list(iterate_blocks(work, indices))


def find_errors(read: Callable[[int], object], indices: Sequence[int]) -> dict[int, str]:
    """The images that `read` raises a `ValueError` for, in order, each with its message."""

    def work(block: Sequence[int]) -> list[tuple[int, str]]:
        errors = []
        for i in block:
            try:
                read(i)
            except ValueError as error:
                errors.append((i, str(error)))
        return errors

    return dict(itertools.chain.from_iterable(iterate_blocks(work, indices)))
