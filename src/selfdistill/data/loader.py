"""Row numbers -> batches on the device that trains on them, loaded image by image or taken from what lies there."""

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..task import Batch
from .dataset import EvalSet, Loaded, RowSet, TrainSet
from .sampler import Draw

CPU = torch.device("cpu")
CHUNKS = {"cpu": 2**19}  # values that are augmented at once: what a core's cache holds
CHUNK = 2**23  # elsewhere: to start the work on a GPU takes longer than to do it for a small batch


def train_loader(
    dataset: TrainSet,
    steps: Sequence[Sequence[Sequence[Draw]]],
    *,
    workers: int = 0,
    device: torch.device = CPU,
    channels_last: bool = False,
) -> Iterable[Batch]:
    """One `Batch` on `device` per micro-batch of `steps`, all of one epoch, in order.

    `channels_last` is the memory format of its `images`. An image that cannot be used raises `ValueError`.
    """
    parts = [[draw.row for draw in part] for step in steps for part in step]
    epochs = {draw.epoch for step in steps for part in step for draw in part}
    assert len(epochs) <= 1, "a loader serves one epoch"
    place = Place(device, torch.channels_last if channels_last else torch.contiguous_format)
    return Batches(dataset, parts, epoch=max(epochs, default=0), workers=workers, place=place)


def eval_loader(
    dataset: EvalSet,
    *,
    batch_size: int,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    device: torch.device = CPU,
) -> Iterable[Batch]:
    """Every row of this process's share `rows[rank::world]` once and in order; the last batch may be smaller.

    Images with masks are shown at sizes of their own: where these differ, only a `batch_size` of 1 does not raise
    `ValueError`.
    """
    share = range(rank, len(dataset), world)
    parts = [list(share[start : start + batch_size]) for start in range(0, len(share), batch_size)]
    return Batches(dataset, parts, epoch=0, workers=workers, place=Place(device, torch.contiguous_format))


class Place(NamedTuple):
    """Where batches are wanted, and in which memory format."""

    device: torch.device
    format: torch.memory_format

    def moved(self, tensor: Tensor) -> Tensor:
        """On the device, without waiting for what it does."""
        return (tensor.pin_memory() if self.pins else tensor).to(self.device, non_blocking=True)

    @property
    def pins(self) -> bool:
        return self.device.type == "cuda"


class Batches(Iterable[Batch]):
    """One batch per list of row numbers; iterating draws nothing from any global generator."""

    def __init__(self, dataset: RowSet, parts: list[list[int]], *, epoch: int, workers: int, place: Place) -> None:
        self.dataset, self.parts, self.epoch, self.workers, self.place = dataset, parts, epoch, workers, place

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[Batch]:
        if not self.parts:
            return
        dataset, place = self.dataset, self.place
        rows = torch.tensor([row for part in self.parts for row in part])
        keys, numbers = place.moved(dataset.keys(rows, self.epoch)), place.moved(rows)
        stages, stored = dataset.stages.on(place.device, place.format), dataset.store.ready(place.device)
        start = 0
        for sizes, (images, target) in self._loaded() if stored is None else self._picked(stored, rows):
            end = start + sum(sizes)
            finished = stages.finish(images.flatten(0, 1), keys[:, start:end].flatten())
            pictures = finished.unflatten(0, images.shape[:2]).split(sizes, dim=1)
            for each in zip(pictures, target.split(sizes), numbers[start:end].split(sizes), strict=True):
                batch = dataset.batch(*each)
                # images lie in memory alike whatever was augmented with them: in a resumed run that is something else
                shared = batch.images.numel() < finished.numel()
                yield batch._replace(images=batch.images.to(memory_format=place.format, copy=shared))
            start = end

    def _loaded(self) -> Iterator[tuple[list[int], Loaded]]:
        """Batch by batch from the rows' own images."""
        loader = DataLoader(
            _Parts(self.dataset, self.parts, self.epoch),
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=min(self.workers, len(self.parts), os.cpu_count() or 1),
            pin_memory=self.place.pins,
            generator=torch.Generator(),  # else every iteration takes one number from torch's own
        )
        for part, loaded in zip(self.parts, loader, strict=True):
            if isinstance(loaded, _Failure):
                raise ValueError(loaded.message)
            yield [len(part)], Loaded(*(each.to(self.place.device, non_blocking=True) for each in loaded))

    def _picked(self, stored: Tensor, rows: Tensor) -> Iterator[tuple[list[int], Loaded]]:
        """Several batches at a time from images that lie on the device, without a step of Python for each."""
        pictures = self.place.moved(self.dataset.pictures(rows, self.epoch))
        target = self.place.moved(self.dataset.rows.labels[rows])
        most = CHUNKS.get(stored.device.type, CHUNK) // (len(pictures) * stored[0].numel())
        start = 0
        for sizes in grouped([len(part) for part in self.parts], most):
            here = pictures[:, start : start + sum(sizes)]
            images = stored.index_select(0, here.flatten()).unflatten(0, here.shape)
            yield sizes, Loaded(images, target[start : start + sum(sizes)])
            start += sum(sizes)


def grouped(sizes: Sequence[int], most: int) -> Iterator[list[int]]:
    """Neighbours with a sum of `most` at most, and such as are larger alone.

    >>> list(grouped([2, 2, 2, 5, 1], 4))
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
    """An error on its way out of a worker: raised there, it would arrive as the text of a traceback."""

    message: str


class _Parts(Dataset[Loaded]):
    def __init__(self, dataset: RowSet, parts: list[list[int]], epoch: int) -> None:
        self.dataset, self.parts, self.epoch = dataset, parts, epoch

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> Loaded | _Failure:
        try:
            return self.dataset.loaded(self.parts[number], self.epoch)
        except ValueError as error:
            return _Failure(str(error))


def _as_it_is(batch: Any) -> Any:
    return batch
