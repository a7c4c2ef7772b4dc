"""Rows -> batches: augmentation, views and partners drawn per (seed, epoch, row), and the loaders that stack them."""

import os
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..method import Batch
from .plan import Draw
from .rows import Rows
from .seeds import derive, private_generators

Parts = Sequence[Sequence[Any]]  # the keys of a data set, batch by batch
Transform = Callable[..., Any]  # from what `Rows.shown` gives it: the image, and the mask where there is one

AUGMENT, PARTNER, CHOICE = 2, 3, 4  # what a seed is for; 1 is the order of `Plan`


class TrainSet(Dataset[Batch]):
    """One augmented row per `Draw`, as a `Batch` without its first axis.

    A view is one further draw of `transform`; a partner is another random row of the same label, the row itself only
    where it is alone in its class, and different rows where the class has enough. Everything drawn depends on
    (seed, epoch, row, view) alone, so order, workers and resuming change nothing, nor do `views` and `partners` change
    `images`.
    """

    def __init__(self, rows: Rows, transform: Transform, *, seed: int, views: int = 0, partners: int = 0) -> None:
        self.rows, self.transform = rows, transform
        self.seed, self.views, self.partners = seed, views, partners
        if partners:
            self.by_label = torch.argsort(rows.labels, stable=True)
            self.place = torch.empty_like(self.by_label)  # the inverse: where in `by_label` a row stands
            self.place[self.by_label] = torch.arange(len(rows))
            self.ends = rows.counts().cumsum(0)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, draw: Draw) -> Batch:
        epoch, row = draw
        views: list[Tensor] = []
        with private_generators() as seed:

            def drawn(purpose: int, number: int) -> Transform:
                def transform(*stored: Any) -> Any:
                    seed(derive(self.seed, epoch, row, purpose, number))
                    return self.transform(*stored)

                return transform

            def with_views(*stored: Any) -> Any:  # of an image that is decoded once
                images, *others = [drawn(AUGMENT, number)(*stored) for number in range(1 + self.views)]
                views.extend(others)
                return images

            images, target = self.rows.shown(row, with_views)
            others = self._partners(draw) if self.partners else []
            partners = [self.rows.shown(other, drawn(PARTNER, n))[0] for n, other in enumerate(others)]
        return Batch(images, target, torch.tensor(row), _stacked(views), _stacked(partners))

    def _partners(self, draw: Draw) -> list[int]:
        """Rows of the same label, never `draw.row` unless it is alone, different ones where there are enough."""
        label, place = int(self.rows.labels[draw.row]), int(self.place[draw.row])
        start = int(self.ends[label - 1]) if label else 0
        others = range(start, max(int(self.ends[label]) - 1, start + 1))  # places with that of this row taken out
        dice = random.Random(derive(self.seed, *draw, CHOICE))
        enough = len(others) >= self.partners
        chosen = dice.sample(others, self.partners) if enough else dice.choices(others, k=self.partners)
        alone = int(self.ends[label]) - start == 1
        return [int(self.by_label[other + (other >= place and not alone)]) for other in chosen]


class EvalSet(Dataset[Batch]):
    """One row per row number, always the same."""

    def __init__(self, rows: Rows, transform: Transform) -> None:
        self.rows, self.transform = rows, transform

    def __getitem__(self, row: int) -> Batch:
        images, target = self.rows.shown(row, self.transform)
        return Batch(images, target, torch.tensor(row))


def train_loader(
    dataset: TrainSet, steps: Sequence[Sequence[Sequence[Draw]]], *, workers: int = 0, pin_memory: bool = False
) -> Iterable[Batch]:
    """One `Batch` per micro-batch of `steps`, in order. An image that cannot be used raises `ValueError`."""
    return Batches(dataset, [part for step in steps for part in step], workers=workers, pin_memory=pin_memory)


def eval_loader(
    rows: Rows,
    transform: Transform,
    *,
    batch_size: int,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
) -> Iterable[Batch]:
    """Every row of this process's share `rows[rank::world]` once and in order; the last batch may be smaller.

    Images with masks are shown at sizes of their own: where these differ, only a `batch_size` of 1 does not raise
    `ValueError`.
    """
    share = range(rank, len(rows), world)
    parts = [share[start : start + batch_size] for start in range(0, len(share), batch_size)]
    return Batches(EvalSet(rows, transform), parts, workers=workers, pin_memory=pin_memory)


class Batches(Iterable[Batch]):
    """Stacked rows of a data set, one batch per list of its keys; iterating draws nothing from any global generator."""

    def __init__(self, dataset: Dataset[Batch], parts: Parts, *, workers: int, pin_memory: bool) -> None:
        self.parts = parts
        self.loader = DataLoader(
            _Parts(dataset, parts),
            batch_size=None,
            collate_fn=_as_it_is,
            num_workers=min(workers, len(parts), os.cpu_count() or 1),
            pin_memory=pin_memory,
            generator=torch.Generator(),  # else every iteration takes one number from torch's own
        )

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.loader:
            if isinstance(batch, _Failure):
                raise ValueError(batch.message)
            yield batch


class _Failure(NamedTuple):
    """An error on its way out of a worker: raised there, it would arrive as the text of a traceback."""

    message: str


class _Parts(Dataset[Batch]):
    def __init__(self, dataset: Dataset[Batch], parts: Parts) -> None:
        self.dataset, self.parts = dataset, parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, number: int) -> Batch | _Failure:
        try:
            rows = [self.dataset[key] for key in self.parts[number]]
            _refuse_sizes(rows)
        except ValueError as error:
            return _Failure(str(error))
        return Batch(*map(_stacked, zip(*rows, strict=True)))


def _refuse_sizes(rows: Sequence[Batch]) -> None:
    """Raises `ValueError` for images, or masks, that cannot be stacked."""
    for name in ("images", "target"):
        shapes = sorted({tuple(getattr(row, name).shape) for row in rows})
        if len(shapes) > 1:
            raise ValueError(
                f"{name} of the shapes {shapes[0]} and {shapes[1]} do not make one batch; "
                "where sizes differ, batch_size=1 is allowed"
            )


def _stacked(tensors: Sequence[Tensor | None]) -> Tensor | None:
    return torch.stack(list(tensors)) if len(tensors) and tensors[0] is not None else None


def _as_it_is(batch: Any) -> Any:
    return batch
