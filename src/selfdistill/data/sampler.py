"""Which rows make up which batch: a pure function of seed and epoch, the same however many processes share it."""

from typing import Literal, NamedTuple

import torch

from .random.seeds import generator

ORDER = 1  # tells the seeds of the order from those of anything else drawn per epoch


class Draw(NamedTuple):
    """One row as one epoch sees it."""

    epoch: int
    row: int


MicroBatch = list[Draw]


class Plan:
    """The batches of every epoch, for one of `world` processes.

    An epoch is one permutation of the rows, cut into batches of `batch_size` over all processes; each batch is dealt to
    the processes in equal parts, and each part is cut into `accumulate` micro-batches that differ by at most one row.
    No micro-batch has fewer than two rows: there are fewer instead.

    `drop_last` leaves out the rows of the last, incomplete batch, which are others in each epoch. "auto" does so where
    there is a whole batch. Otherwise that batch is kept where every process gets two rows of it; of it, rows beyond a
    multiple of `world` are left out that epoch.

    Raises `ValueError` where a process would get fewer than two rows of a batch, or an epoch would have no batch.
    """

    def __init__(
        self,
        num_rows: int,
        batch_size: int,
        *,
        seed: int,
        drop_last: bool | Literal["auto"] = "auto",
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if batch_size % world or batch_size < 2 * world:
            raise ValueError(
                f"batch_size={batch_size} cannot be dealt to {world} process{'es' * (world > 1)}; "
                f"choose {f'a multiple of {world} from {2 * world} on' if world > 1 else '2 or more'}: "
                "batch norm needs two images in each"
            )
        if num_rows < 2 * world:
            raise ValueError(f"{num_rows} training images are too few for {world} processes; each needs at least two")
        self.drop_last = num_rows >= batch_size if drop_last == "auto" else drop_last
        if self.drop_last and num_rows < batch_size:
            raise ValueError(
                f"data.drop_last=true leaves no batch of {batch_size} of {num_rows} training images; use auto or false"
            )
        self.num_rows, self.batch_size, self.seed = num_rows, batch_size, seed
        self.accumulate, self.rank, self.world = accumulate, rank, world

    @property
    def steps_per_epoch(self) -> int:
        full, rest = divmod(self.num_rows, self.batch_size)
        return full + (not self.drop_last and rest >= 2 * self.world)

    @property
    def num_dropped(self) -> int:
        """Rows that `drop_last` leaves out of each epoch."""
        return self.num_rows % self.batch_size if self.drop_last else 0

    def epoch(self, number: int) -> list[list[MicroBatch]]:
        """The steps of epoch `number`, each a list of micro-batches, for this process."""
        order = torch.randperm(self.num_rows, generator=generator(self.seed, number, ORDER)).tolist()
        starts = range(0, self.steps_per_epoch * self.batch_size, self.batch_size)
        return [self._step(order[start : start + self.batch_size], number) for start in starts]

    def _step(self, batch: list[int], number: int) -> list[MicroBatch]:
        whole = len(batch) - len(batch) % self.world
        part = [Draw(number, row) for row in batch[self.rank : whole : self.world]]
        pieces = max(min(self.accumulate, len(part) // 2), 1)
        ends = [len(part) * k // pieces for k in range(pieces + 1)]
        return [part[start:end] for start, end in zip(ends, ends[1:], strict=False)]
