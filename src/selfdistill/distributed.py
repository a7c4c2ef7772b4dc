"""The few collectives that methods and training need; with one process each gives back what it got."""

import torch
import torch.distributed as dist
from torch import Tensor, nn


def several() -> bool:
    """Whether this process is one of several that train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def leave() -> None:
    """Ends this process's part in the group; one that exits with its connections open may be aborted by them."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def gather_rows(rows: Tensor) -> Tensor:
    """Rows of all processes, (b, ...) -> (b * world, ...); every process must hold as many."""
    if not several():
        return rows
    out = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
    dist.all_gather(out, rows.contiguous())
    return torch.cat(out)


def share_buffers(module: nn.Module) -> None:
    """Gives every process the buffers of process 0, so that all score the same network."""
    if several():
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)
