"""Which process and which device this is, and what processes that train together exchange.

With one process, every exchange returns what it was given.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


def is_distributed() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_first_process() -> bool:
    """Whether this is the process that writes and speaks; known from the launcher before the processes have met."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    return os.environ.get("RANK", "0") == "0"


def process_rank() -> int:
    """Which of the processes that train together this is, counted from 0."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """How many processes train together; known from the launcher before they have met."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return int(os.environ.get("WORLD_SIZE", "1"))


def default_device() -> str:
    """Where networks run unless a setting says otherwise: on the GPU, if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def is_lost_connection(error: BaseException) -> bool:
    """Whether an error says that another process of the group has ended."""
    words = ("gloo", "nccl", "connection closed", "connection reset", "broken pipe", "tcpstore")
    return isinstance(error, RuntimeError) and world_size() > 1 and any(word in str(error).lower() for word in words)


def share_from_first(value: T) -> T:
    """The first process's value, in every process."""
    if not is_distributed():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def leave_group() -> None:
    """Ends this process's connections to the others, which may be aborted if it exits without."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def deal_rows(rows: Sequence[int]) -> Iterator[None]:
    """Says how many images of the batch at hand each process has, where these numbers differ.

    It lets processes exchange rows without first asking each other how many there are.
    """
    global _rows
    _rows = rows if len(set(rows)) > 1 else None
    try:
        yield
    finally:
        _rows = None


_rows: Sequence[int] | None = None  # images of each process in the batch at hand; None: every process has as many


def gather_rows(rows: Tensor) -> Tensor:
    """Rows of all processes, (b, ...) -> (sum of all b, ...), without gradients.

    Every process must hold as many, or as many for each image of its batch.
    """
    if not is_distributed():
        return rows.detach()
    rows = rows.detach().contiguous()
    if _rows is None:
        gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, rows)
        return torch.cat(gathered)
    per_image = len(rows) // _rows[dist.get_rank()]
    padded = rows.new_zeros(per_image * max(_rows), *rows.shape[1:])  # processes exchange tensors of one size only
    padded[: len(rows)] = rows
    gathered = [torch.empty_like(padded) for _ in _rows]
    dist.all_gather(gathered, padded)
    return torch.cat([part[: per_image * count] for part, count in zip(gathered, _rows, strict=True)])


def gather_parts(rows: Tensor, device: str | torch.device = "cpu") -> list[Tensor]:
    """The rows (n, ...) of each process, which may differ in number, on the CPU; exchanged on `device`."""
    if not is_distributed():
        return [rows]
    rows = rows.to(device)
    count = torch.tensor([len(rows)], device=device)
    counts = [torch.empty_like(count) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, count)
    padded = rows.new_zeros(max(map(int, counts)), *rows.shape[1:])  # processes exchange tensors of one size only
    padded[: len(rows)] = rows
    gathered = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(gathered, padded)
    return [part[: int(count)].cpu() for part, count in zip(gathered, counts, strict=True)]


def local_rows(gathered: Tensor) -> Tensor:
    """This process's rows of what `gather_rows` returned, (sum of all b, ...) -> (b, ...)."""
    if not is_distributed():
        return gathered
    if _rows is not None and len(gathered) % sum(_rows) == 0:
        return gathered.split([len(gathered) // sum(_rows) * count for count in _rows])[dist.get_rank()]
    return gathered.tensor_split(dist.get_world_size())[dist.get_rank()]


def mean_over_processes(mean: Tensor) -> Tensor:
    """The mean over the rows of all processes, from each process's mean over its rows.

    Gradients reach the rows of this process alone, at the weight that is right once the engine averages gradients over
    processes.
    """
    if not is_distributed():
        return mean
    rows = _rows or [1] * dist.get_world_size()
    total = mean.detach() * rows[dist.get_rank()]
    dist.all_reduce(total)
    return mean + (total / sum(rows) - mean.detach())


def sum_over_processes(values: Tensor) -> Tensor:
    """The sum of this tensor over all processes."""
    if not is_distributed():
        return values
    total = values.detach().clone()
    dist.all_reduce(total)
    return total


def broadcast_buffers(module: nn.Module) -> None:
    """Gives every process the buffers of process 0, so that all evaluate the same network."""
    if is_distributed():
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)
