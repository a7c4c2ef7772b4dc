"""The few collectives that methods and training need; with one process each gives back what it got."""

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn


def several() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_first_process() -> bool:
    """Whether this is the process that writes and speaks; known from the launcher before the processes have met."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    return os.environ.get("RANK", "0") == "0"


def world_size() -> int:
    """How many processes train together; known from the launcher before they have met."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return int(os.environ.get("WORLD_SIZE", "1"))


def leave() -> None:
    """Ends this process's part in the group; one that exits with its connections open may be aborted by them."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def gather_rows(rows: Tensor) -> Tensor:
    """Rows of all processes, (b, ...) -> (b * world, ...), without gradients; every process must hold as many."""
    if not several():
        return rows.detach()
    rows = rows.detach().contiguous()
    out = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(out, rows)
    return torch.cat(out)


def own_rows(gathered: Tensor) -> Tensor:
    """This process's part of what `gather_rows` gave, (b * world, ...) -> (b, ...)."""
    return gathered.chunk(dist.get_world_size())[dist.get_rank()] if several() else gathered


def mean_over_processes(mean: Tensor) -> Tensor:
    """The mean over all rows from each process's mean over its own; every process must hold as many.

    Gradients reach the own rows alone, at the weight that is right once the engine averages gradients over processes.
    """
    if not several():
        return mean
    total = mean.detach().clone()
    dist.all_reduce(total)
    return mean + (total / dist.get_world_size() - mean.detach())


def share_buffers(module: nn.Module) -> None:
    """Gives every process the buffers of process 0, so that all score the same network."""
    if several():
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)
