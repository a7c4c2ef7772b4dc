"""Every method on its share of a batch, in several processes."""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from helpers.batches import small_batch, small_task
from helpers.contract import FEWER_CASES
from helpers.methods import float64_by_default, small_method, small_teacher
from helpers.networks import channel_norm, small_student
from selfdistill.methods import find_method

WORLD, ROWS, STEPS = 2, 16, 3


@float64_by_default()
def steps_of(name, kind, *, live, rank=0, world=1):
    """Losses of some steps on one rank's rows, and the trained weights, in float64.

    The student has no batch norm; those of a method's own nets are at rest, in eval mode, unless they are `live`.
    """
    found, task = find_method(name), small_task(kind)
    method = small_method(found, task, student=small_student(task, norm=channel_norm))
    for norm in [] if live else batch_norms(method):
        norm.eval()
    whole = small_batch(found, task, rows=ROWS)
    if kind == "segmentation":  # as many labelled pixels in every part: then a mean of means is the mean
        whole = whole._replace(target=whole.target.clamp(min=0))
    batch = type(whole)(*[None if part is None else part.chunk(world)[rank] for part in whole])
    module = DistributedDataParallel(method) if world > 1 else method
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.01, momentum=0.9)
    seen = []
    for number in range(STEPS):
        torch.manual_seed(number)
        step = module(batch, torch.tensor(number / STEPS, dtype=torch.float64))
        optimizer.zero_grad()
        step.loss.backward()
        optimizer.step()
        method.after_step()
        seen.append({term: value.item() for term, value in step.losses.items()})
    return {"losses": seen, "weights": {key: p.detach().clone() for key, p in method.named_parameters()}}


def batch_norms(method):
    return [module for module in method.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def share(rank, folder):
    """What one of the processes does: every method, one after another."""
    torch.set_num_threads(1)
    for name, kind in FEWER_CASES:  # teachers are trained before there are others to share their batch with
        if find_method(name).needs_teacher:
            small_teacher(find_method(name).teacher_method, small_task(kind))
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORLD)
    results = {
        (*case, live): steps_of(*case, live=live, rank=rank, world=WORLD)
        for case in FEWER_CASES
        for live in (False, True)
    }
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()
