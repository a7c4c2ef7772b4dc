"""Chooses the images of each batch, as a pure function of seed and epoch for any number of processes."""

import heapq
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple, overload

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from ..errors import UserCodeError, count_of, did_you_mean
from ..imports import load, suggest_colon
from .cache.blocks import Blocks
from .random.seeds import create_generator

ORDER = 1  # the purpose of a seed: the order of an epoch


class EpochIndex(NamedTuple):
    """An index of the data set in an epoch, and how often it came before; the augmentations depend on all three."""

    epoch: int
    index: int
    repeat: int = 0


MicroBatch = list[EpochIndex]
Sampler = Callable[[Tensor, torch.Generator], Int64[Tensor, " n"]]  # from the labels of all images, an epoch's images


def shuffle(labels: Shaped[Tensor, " n"], generator: torch.Generator) -> Int64[Tensor, " n"]:
    """Every image once."""
    return torch.randperm(len(labels), generator=generator, device="cpu")


def balance(labels: Int64[Tensor, " n"], generator: torch.Generator) -> Int64[Tensor, " n"]:
    """As many images as there are, equally many of each class that has any: the others come once more or are left out.

    A class that does not divide evenly takes one more or one less, drawn anew each time. Within a class no image comes
    twice before all have come.
    """
    classes = [(labels == label).nonzero().flatten() for label in labels.unique()]
    places = len(labels) // len(classes)
    lucky = torch.randperm(len(classes), generator=generator, device="cpu")[: len(labels) % len(classes)].tolist()
    drawn = []
    for number, members in enumerate(classes):
        count = places + (number in lucky)
        rounds = [members[shuffle(members, generator)] for _ in range(-(-count // len(members)))]
        drawn.append(torch.cat(rounds)[:count])
    order = torch.cat(drawn)
    return order[shuffle(order, generator)]


def count_repeats(indices: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """How often each index came before in the list.

    >>> count_repeats(torch.tensor([4, 1, 4, 4, 1])).tolist()
    [0, 0, 1, 2, 1]
    """
    ordered, places = indices.sort(stable=True)
    repeats = torch.empty_like(indices)
    repeats[places] = torch.arange(len(indices)) - torch.searchsorted(ordered, ordered)
    return repeats


def gather(
    indices: Int64[Tensor, " n"], blocks: Int64[Tensor, " images"], at_once: int, generator: torch.Generator
) -> Int64[Tensor, " n"]:
    """The same indices, reordered so that neighbors lie in few of the blocks of images.

    The blocks are shuffled and dealt to `at_once` lanes, always the shortest one. The images of a block keep the order
    that they were drawn in, and the lanes take turns. So where the number of processes divides that of the lanes, no
    two processes need the same block, but near the end of an epoch.
    """
    numbers, block, counts = blocks[indices].unique(return_inverse=True, return_counts=True)
    lengths = [(0, lane) for lane in range(min(at_once, len(numbers)))]
    lane, start = torch.zeros_like(numbers), torch.zeros_like(numbers)
    rank = shuffle(numbers, generator)
    for number in rank.tolist():
        start[number], lane[number] = lengths[0]
        heapq.heapreplace(lengths, (lengths[0][0] + int(counts[number]), lengths[0][1]))
    by_block = block.argsort(stable=True)
    place = torch.empty_like(block)  # of each index in its block
    place[by_block] = torch.arange(len(block)) - (counts.cumsum(0) - counts)[block[by_block]]
    turn = (start[block] + place) * at_once + lane[block]
    return indices[turn.argsort()]


SAMPLERS: dict[str, Sampler] = {"shuffle": shuffle, "balanced": balance}


def find_sampler(name: str) -> Sampler:
    """A sampler by its name, or by "package.module:function".

    Raises `ValueError` for an unknown name. What a function of the user's own draws is checked where it is called.
    """
    if name in SAMPLERS:
        return SAMPLERS[name]
    if ":" not in name and not suggest_colon(name):
        raise ValueError(f"data.sampler={name} is no sampler{did_you_mean(name, SAMPLERS)}")
    sampler = load(name)

    def draw(labels: Tensor, generator: torch.Generator) -> Int64[Tensor, " n"]:
        count, drawn = len(labels), sampler(labels, generator)
        fits = isinstance(drawn, Tensor) and drawn.dtype == torch.int64 and drawn.shape == (count,)
        if not fits or not all(0 <= int(index) < count for index in drawn.aminmax()):
            raise UserCodeError(f"data.sampler={name} must return an int64 tensor of {count} indices below {count}")
        return drawn

    return draw


class EpochSteps(Sequence[list[MicroBatch]]):
    """The steps of an epoch, made one by one: as a list they would take hundreds of bytes for each image."""

    def __init__(self, make: Callable[[int], list[MicroBatch]], numbers: range) -> None:
        self.make, self.numbers = make, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, number: int) -> list[MicroBatch]: ...

    @overload
    def __getitem__(self, number: slice) -> "EpochSteps": ...

    def __getitem__(self, number: int | slice) -> "list[MicroBatch] | EpochSteps":
        if isinstance(number, slice):
            return EpochSteps(self.make, self.numbers[number])
        return self.make(self.numbers[number])


class BatchSampler:
    """The batches of every epoch, for one of `world` processes.

    An epoch is one permutation of the images, or what another `sampler` draws from their `labels`; images in `blocks`
    come from few of them at a time. It is cut into batches of `batch_size` over all processes. Each process gets an
    equal share of each batch, but for one image of an incomplete one. A share is cut into `accumulate` micro-batches
    that differ by at most one image, or into fewer, so that each has at least two images.

    `drop_last` leaves out the images of the last, incomplete batch, which differ from epoch to epoch. "auto" does so if
    there is a complete batch. Otherwise the incomplete batch is kept if every process gets two images of it.

    Raises `ValueError` if a process would get fewer than two images of a batch, or if an epoch would have no batch.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        *,
        seed: int,
        drop_last: bool | Literal["auto"] = "auto",
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
        sampler: Sampler = shuffle,
        labels: Tensor | None = None,
        blocks: Blocks | None = None,
    ) -> None:
        if batch_size % world or batch_size < 2 * world:
            raise ValueError(
                f"batch_size={batch_size} cannot be dealt to {world} process{'es' * (world > 1)}; "
                f"choose {f'a multiple of {world} from {2 * world} on' if world > 1 else '2 or more'}: "
                "batch norm needs two images in each"
            )
        if num_images < 2 * world:
            images, processes = count_of(num_images, "training image"), count_of(world, "process")
            raise ValueError(f"{images} cannot be dealt to {processes}; each needs at least two")
        self.drop_last = num_images >= batch_size if drop_last == "auto" else drop_last
        if self.drop_last and num_images < batch_size:
            raise ValueError(
                f"data.drop_last=true leaves no batch of {batch_size} of {num_images} training images;"
                " use auto or false"
            )
        self.num_images, self.batch_size, self.seed = num_images, batch_size, seed
        self.accumulate, self.rank, self.world = accumulate, rank, world
        self.blocks = blocks
        self.sampler, self.labels = sampler, torch.empty(num_images) if labels is None else labels

    @property
    def steps_per_epoch(self) -> int:
        full, rest = divmod(self.num_images, self.batch_size)
        return full + (not self.drop_last and rest >= 2 * self.world)

    @property
    def num_dropped(self) -> int:
        """Images that are left out of each epoch."""
        return self.num_images - sum(self.batch_sizes)

    def describe_dropped(self) -> str:
        """How many images are left out of each epoch, as the beginning of a sentence."""
        are = "is" if self.num_dropped == 1 else "are"
        return f"{self.num_dropped} of {self.num_images} images {are} left out of each epoch, others each time"

    def epoch(self, number: int) -> EpochSteps:
        """The steps of epoch `number` for this process; each step is a list of micro-batches."""
        generator = create_generator(self.seed, number, ORDER)
        indices = self.sampler(self.labels, generator)
        if self.blocks is not None:
            indices = gather(indices, self.blocks.numbers, self.blocks.folder.at_once, generator)
        repeats, sizes = count_repeats(indices), self.batch_sizes

        def make(step: int) -> list[MicroBatch]:
            start = step * self.batch_size
            batch = slice(start + self.rank, start + sizes[step], self.world)
            drawn = zip(indices[batch].tolist(), repeats[batch].tolist(), strict=True)
            share = [EpochIndex(number, index, repeat) for index, repeat in drawn]
            ends = [0, *accumulate(self.deal(sizes[step])[self.rank])]
            return [share[start:end] for start, end in pairwise(ends)]

        return EpochSteps(make, range(len(sizes)))

    @property
    def batch_sizes(self) -> list[int]:
        """How many images each step of an epoch has, over all processes."""
        last = self.num_images - (self.steps_per_epoch - 1) * self.batch_size
        return [self.batch_size] * (self.steps_per_epoch - 1) + [min(last, self.batch_size)]

    def deal(self, size: int) -> list[list[int]]:
        """How many images of a batch each process has in each of its micro-batches."""
        shares = [len(range(rank, size, self.world)) for rank in range(self.world)]
        pieces = max(min(self.accumulate, min(shares) // 2), 1)
        return [[share * (k + 1) // pieces - share * k // pieces for k in range(pieces)] for share in shares]
