"""Loads batches onto the training device, image by image or from images that are already there."""

import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..task import Batch
from .cache.blocks import Blocks, ReadAhead
from .dataset import EvalSet, Stacked, TrainSet, TransformedDataset
from .sampler import EpochIndex

CPU = torch.device("cpu")
CHUNKS = {"cpu": 2**19}  # values that are augmented at once: they fit into a core's cache
CHUNK = 2**23  # elsewhere: on a GPU, starting the work for a small batch takes longer than doing it


def train_loader(
    dataset: TrainSet,
    steps: Sequence[Sequence[Sequence[EpochIndex]]],
    *,
    workers: int = 0,
    device: torch.device = CPU,
    channels_last: bool = False,
) -> Iterable[Batch]:
    """Yields one `Batch` on `device` per micro-batch of `steps`, in order. All are of one epoch.

    `channels_last` is the memory format of its `images`. An image that cannot be used raises `ValueError`.
    """
    batches, epochs = [], set()
    for micro_batch in itertools.chain.from_iterable(steps):
        batches.append(torch.tensor([dataset.number_draw(item) for item in micro_batch]))
        epochs |= {item.epoch for item in micro_batch}
    assert len(epochs) <= 1, "a loader serves one epoch"
    destination = Destination(device, torch.channels_last if channels_last else torch.contiguous_format)
    return Batches(dataset, batches, epoch=max(epochs, default=0), workers=workers, destination=destination)


def eval_loader(
    dataset: EvalSet,
    *,
    batch_size: int,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    device: torch.device = CPU,
) -> Iterable[Batch]:
    """Yields this process's share `range(len)[rank::world]` in order; the last batch may be smaller.

    Images with masks keep their sizes. Raises `ValueError` for a batch of different sizes; `batch_size` 1 always works.
    """
    share = torch.arange(min(rank, len(dataset)), len(dataset), world)
    batches = share.split(batch_size) if len(share) else ()
    destination = Destination(device, torch.contiguous_format)
    return Batches(dataset, batches, epoch=0, workers=workers, destination=destination)


class Destination(NamedTuple):
    """The device and the memory format of batches."""

    device: torch.device
    memory_format: torch.memory_format

    def move(self, tensor: Tensor) -> Tensor:
        """Moves a tensor to the device without waiting for the device."""
        return (tensor.pin_memory() if self.pins else tensor).to(self.device, non_blocking=True)

    @property
    def pins(self) -> bool:
        return self.device.type == "cuda"


class Batches(Iterable[Batch]):
    """Yields one batch per tensor of indices, or of draws; iterating does not draw from global generators."""

    def __init__(
        self,
        dataset: TransformedDataset,
        batches: Sequence[Tensor],
        *,
        epoch: int,
        workers: int,
        destination: Destination,
    ) -> None:
        self.dataset, self.batches, self.epoch = dataset, batches, epoch
        self.workers, self.destination = workers, destination

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        if not self.batches:
            return
        dataset, destination = self.dataset, self.destination
        indices = torch.cat([*self.batches])
        keys, moved_indices = (
            destination.move(tensor) for tensor in (dataset.keys(indices, self.epoch), indices % len(dataset))
        )
        transform = dataset.transform.to(destination.device, destination.memory_format)
        cached = dataset.samples.on(destination.device)
        start = 0
        for sizes, (images, target) in self._load(indices) if cached is None else self._select(cached, indices):
            end = start + sum(sizes)
            finished = transform.batch(images.flatten(0, 1), keys[:, start:end].flatten()).unflatten(
                0, images.shape[:2]
            )
            columns = (finished.split(sizes, dim=1), target.split(sizes), moved_indices[start:end].split(sizes))
            for images_targets_indices in zip(*columns, strict=True):
                batch = dataset.make_batch(*images_targets_indices)
                # copy, so that strides do not depend on the images augmented together: these differ in a resumed run
                is_slice = batch.images.numel() < finished.numel()
                images = batch.images.to(memory_format=destination.memory_format, copy=is_slice)
                yield batch._replace(images=images)
            start = end

    def _load(self, indices: Tensor) -> Iterator[tuple[list[int], Stacked]]:
        """Loads batch by batch, from single samples."""
        loader = DataLoader(
            _StackedBatches(self.dataset, self.batches, self.epoch),
            batch_size=None,
            collate_fn=_return_unchanged,
            num_workers=min(self.workers, len(self.batches), os.cpu_count() or 1),
            pin_memory=self.destination.pins,
            generator=torch.Generator(),  # else every iteration draws a number from torch's global generator
        )
        iterator, done = iter(loader), 0  # which starts the workers, before there is another thread
        try:
            with closing(ReadAhead(self._find_blocks(), indices)) as ahead:
                for batch, loaded in zip(self.batches, iterator, strict=True):
                    if isinstance(loaded, _Failure):
                        raise ValueError(loaded.message)
                    yield (
                        [len(batch)],
                        Stacked(*(tensor.to(self.destination.device, non_blocking=True) for tensor in loaded)),
                    )
                    done += len(batch)
                    ahead.reach(done)
        finally:
            del iterator  # which ends the workers; the traceback of an error would keep them

    def _find_blocks(self) -> Blocks | None:
        """The blocks that the images are read from, unless they are kept elsewhere."""
        return self.dataset.dataset.blocks if self.dataset.samples.images is None else None

    def _select(self, cached: Tensor, indices: Tensor) -> Iterator[tuple[list[int], Stacked]]:
        """Takes several batches at a time from images on the device, without a Python loop over images."""
        image_indices = self.destination.move(self.dataset.image_indices(indices, self.epoch))
        target = self.destination.move(self.dataset.dataset.labels[indices % len(self.dataset)])
        most = CHUNKS.get(cached.device.type, CHUNK) // (len(image_indices) * cached[0].numel())
        start = 0
        for sizes in group_sizes([len(batch) for batch in self.batches], most):
            end = start + sum(sizes)
            selected = image_indices[:, start:end]
            images = cached.index_select(0, selected.flatten()).unflatten(0, selected.shape)
            yield sizes, Stacked(images, target[start:end])
            start = end


def group_sizes(sizes: Sequence[int], most: int) -> Iterator[list[int]]:
    """Groups neighboring sizes so that each sum is at most `most`; a larger size gets its own group.

    >>> list(group_sizes([2, 2, 2, 5, 1], 4))
    [[2, 2], [2], [5], [1]]
    """
    group: list[int] = []
    for size in sizes:
        if group and sum(group) + size > most:
            yield group
            group = []
        group.append(size)
    if group:
        yield group


class _Failure(NamedTuple):
    """An error in a worker. If it were raised there, it would arrive as the text of a traceback."""

    message: str


class _StackedBatches(Dataset[Stacked]):
    """Batches by number, for the workers of a `DataLoader`."""

    def __init__(self, dataset: TransformedDataset, batches: Sequence[Tensor], epoch: int) -> None:
        self.dataset, self.batches, self.epoch = dataset, batches, epoch

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> Stacked | _Failure:
        try:
            return self.dataset.load(self.batches[number].tolist(), self.epoch)
        except ValueError as error:
            return _Failure(str(error))


def _return_unchanged(loaded: Stacked | _Failure) -> Stacked | _Failure:
    return loaded
