"""Which process and which device this is, and what processes that train together exchange.

With one process, every exchange returns what it was given.
"""

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn


def is_distributed() -> bool:
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


def default_device() -> str:
    """Where networks run unless a setting says otherwise: on the GPU, if there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def leave_group() -> None:
    """Ends this process's connections to the others, which may be aborted if it exits without."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def gather_rows(rows: Tensor) -> Tensor:
    """Rows of all processes, (b, ...) -> (b * world, ...), without gradients; every process must hold as many."""
    if not is_distributed():
        return rows.detach()
    rows = rows.detach().contiguous()
    gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, rows)
    return torch.cat(gathered)


def local_rows(gathered: Tensor) -> Tensor:
    """This process's rows of what `gather_rows` returned, (b * world, ...) -> (b, ...)."""
    return gathered.chunk(dist.get_world_size())[dist.get_rank()] if is_distributed() else gathered


def mean_over_processes(mean: Tensor) -> Tensor:
    """The mean over the rows of all processes, from each process's mean; every process must hold as many rows.

    Gradients reach the rows of this process alone, at the weight that is right once the engine averages gradients over
    processes.
    """
    if not is_distributed():
        return mean
    total = mean.detach().clone()
    dist.all_reduce(total)
    return mean + (total / dist.get_world_size() - mean.detach())


def broadcast_buffers(module: nn.Module) -> None:
    """Gives every process the buffers of process 0, so that all evaluate the same network."""
    if is_distributed():
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)
