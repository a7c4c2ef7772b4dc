"""What the micro-batches and the processes of one step have in common: the mixed images, and the labeled pixels.

With these, a step over several micro-batches or processes computes what it computes over one whole batch.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..distributed import deal_rows, gather_rows, sum_over_processes
from ..task import Batch, Step, Task


def mix_whole_batch(
    mix: Callable[[Batch], Batch], micro_batches: Sequence[Batch], sizes: Sequence[Sequence[int]], rank: int
) -> list[Batch]:
    """The micro-batches of a process after the images of the whole step were mixed, as one process would mix them.

    `sizes` holds the size of each micro-batch of each process. Every process mixes all images and keeps its own, so all
    must draw the same random numbers.
    """
    if len(sizes) == len(micro_batches) == 1:
        return [mix(micro_batches[0])]
    counts = [sum(sizes_of_process) for sizes_of_process in sizes]
    columns = [None if parts[0] is None else torch.cat(parts) for parts in zip(*micro_batches, strict=True)]
    device, total = micro_batches[0].images.device, sum(counts)
    # Process r holds the images r, r + world, ... of the batch.
    order = torch.cat(
        [torch.arange(first, total, len(counts), device=device) for first in range(len(counts))]
    ).argsort()
    with deal_rows(counts):
        whole = Batch(*[None if column is None else gather_rows(column)[order] for column in columns])
    mixed = mix(whole)
    own = [None if column is None else column[rank :: len(counts)].split(sizes[rank]) for column in mixed]
    return [Batch(*[None if parts is None else parts[micro] for parts in own]) for micro in range(len(sizes[rank]))]


def weigh_by_labels(micro_batches: Sequence[Batch], sizes: Sequence[Sequence[int]], task: Task) -> list[Tensor | None]:
    """For each micro-batch, how much denser its labels are than those of the whole step; None where all count alike.

    A mean over labeled pixels, times this and the share of the step's images, adds up to the mean over all labeled
    pixels of the step.
    """
    masks = [task.labeled_mask(batch.target) for batch in micro_batches]
    if masks[0] is None or len(sizes) == len(micro_batches) == 1:
        return [None] * len(micro_batches)
    labeled = torch.stack([mask.sum() for mask in masks]).double()
    density = sum_over_processes(labeled.sum()).clamp(min=1) / sum(map(sum, sizes))
    return [count / (len(mask) * density) for count, mask in zip(labeled, masks, strict=True)]


def weigh_terms(step: Step, weight: Tensor | None, unlabeled: Sequence[str]) -> Step:
    """The step with every loss term times `weight`, but those that average over `unlabeled` pixels too."""
    if weight is None:
        return step
    weighed = {name: term if name in unlabeled else term * weight.to(term.dtype) for name, term in step.losses.items()}
    return step._replace(losses=weighed)
