"""What the micro-batches and the processes of one step have in common: the mixed images, and the labels.

With these, a step over several micro-batches or processes computes what it computes over one whole batch.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..distributed import deal_rows, gather_rows, sum_over_processes
from ..method import Method
from ..task import Batch, Step


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


class LabelDensity(NamedTuple):
    """How much denser the labels of a micro-batch are than those of the whole step; None: as dense.

    A mean over the labels of the micro-batch, times this and the micro-batch's share of the step's images, adds up to
    the mean over all labels of the step.
    """

    labeled: Tensor | None = None  # of labeled pixels or known answers, which most terms of masks count
    weighted: Tensor | None = None  # of what the supervised loss divides by: these, or the class weights


def weigh_by_labels(
    micro_batches: Sequence[Batch], sizes: Sequence[Sequence[int]], method: Method
) -> list[LabelDensity]:
    """The density of the labels of each micro-batch; its images are all that counts where they are not mentioned."""
    task = method.task
    masks = [task.labeled_mask(batch.target) for batch in micro_batches]
    is_weighted = task.class_weights is not None and method.counts_batch_labels
    is_weighted &= all(batch.soft_target is None for batch in micro_batches)  # whose loss is a mean over images
    if len(sizes) == len(micro_batches) == 1 or (masks[0] is None and not is_weighted):
        return [LabelDensity()] * len(micro_batches)
    images, lengths = sum(map(sum, sizes)), [len(batch.images) for batch in micro_batches]
    labeled = weighted = None
    if masks[0] is not None:
        labeled = _divide_by_whole([mask.sum() for mask in masks], lengths, images)
    if is_weighted:
        weighted = _divide_by_whole([task.count_labels(batch.target) for batch in micro_batches], lengths, images)
    none = [None] * len(micro_batches)
    return [*map(LabelDensity, labeled or none, weighted or labeled or none)]


def _divide_by_whole(counts: Sequence[Tensor], lengths: Sequence[int], images: int) -> list[Tensor]:
    """Each count per image, over the same of all micro-batches and processes, which hold so many `images`."""
    values = torch.stack(list(counts)).double()
    total = sum_over_processes(values.sum())
    density = total.where(total > 0, 1) / images
    return [value / (length * density) for value, length in zip(values, lengths, strict=True)]


def weigh_terms(step: Step, density: LabelDensity, method: Method) -> Step:
    """The step with each loss term times the density of the labels that it is a mean over."""
    if density.labeled is None and density.weighted is None:
        return step
    by_weight = {*method.supervised_terms, *method.weighted_terms}
    by_image = {*method.unlabeled_terms}
    if method.task.output == "image":  # whose maps and features have no labels
        by_image |= step.losses.keys() - by_weight - {*method.soft_label_terms}

    def weigh(name: str, term: Tensor) -> Tensor:
        factor = density.weighted if name in by_weight else density.labeled
        return term if factor is None or name in by_image else term * factor.to(term.dtype)

    return step._replace(losses={name: weigh(name, term) for name, term in step.losses.items()})
