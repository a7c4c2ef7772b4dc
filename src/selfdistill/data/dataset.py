"""Rows and a transform -> what a batch is made of: views and positives drawn per (seed, epoch, row)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor
from torch.utils.data import Dataset

from ..task import Batch
from .cache.store import Store
from .datasets.base import LabeledDataset
from .random.keys import below, keys_from, uniform
from .random.seeds import derive, private_generators
from .sampler import Draw
from .transforms.base import Stages

AUGMENT, POSITIVE, CHOICE = 2, 3, 4  # what a seed is for; 1 is the order of `Plan`
Transform = Callable[..., Any]  # from what `LabeledDataset.shown` gives it: the image, and the mask where there is one


class Loaded(NamedTuple):
    """Rows as they leave what is done image by image; `p` pictures of each, its own one first."""

    images: Shaped[Tensor, "p b c h w"]
    target: Tensor


class Whole(Stages):
    """A transform that has no stages: done image by image, from beginning to end."""

    random, settled = True, False

    def __init__(self, transform: Transform) -> None:
        self.transform = transform

    def head(self, *stored: Any) -> tuple[Any, ...]:
        return stored

    def one(self, shown: tuple[Any, ...], keys: Tensor) -> Any:
        return self.transform(*shown)

    def finish(self, images: Tensor, keys: Tensor) -> Tensor:
        return images

    def on(self, device: torch.device, memory_format: torch.memory_format) -> "Whole":
        return self


class RowSet(ABC, Dataset[Batch]):
    """Rows as a transform presents them, in its stages."""

    def __init__(self, rows: LabeledDataset, transform: Transform | Stages, cache: str) -> None:
        self.rows = rows
        self.stages: Stages = transform if isinstance(transform, Stages) else Whole(transform)
        self.store = Store(rows, self.stages, cache)

    def __len__(self) -> int:
        return len(self.rows)

    @abstractmethod
    def pictures(self, rows: Int64[Tensor, " b"], epoch: int) -> Int64[Tensor, "p b"]:
        """The rows of which the pictures are that one epoch sees of some rows."""

    @abstractmethod
    def keys(self, rows: Int64[Tensor, " b"], epoch: int) -> Int64[Tensor, "p b"]:
        """What these pictures draw from, see `dice`."""

    @abstractmethod
    def row(self, draw: Draw, rows: list[int], keys: Int64[Tensor, " p"]) -> tuple[list[Tensor], Tensor]:
        """The pictures of one row, made of `rows` as far as it must be image by image, and its target."""

    def loaded(self, rows: Sequence[int], epoch: int) -> Loaded:
        """Several rows, stacked. Raises `ValueError` for images, or masks, that differ in size."""
        numbers = torch.tensor(rows)
        made_of, keys = self.pictures(numbers, epoch).T.tolist(), self.keys(numbers, epoch).T
        found = [self.row(Draw(epoch, row), *each) for row, *each in zip(rows, made_of, keys, strict=True)]
        pictures, targets = zip(*found, strict=True)
        images = [picture for each in zip(*pictures, strict=True) for picture in each]
        _refuse_sizes("images", images)
        _refuse_sizes("target", targets)
        return Loaded(torch.stack(images).unflatten(0, (-1, len(rows))), torch.stack(targets))

    def batch(self, images: Shaped[Tensor, "p b c h w"], target: Tensor, row: Int64[Tensor, " b"]) -> Batch:
        """Finished pictures as methods take them."""
        return Batch(images[0], target, index=row)


class TrainSet(RowSet):
    """Augmented rows: of each its image, further `views` of it, and `positives`.

    A view is one further draw of `transform`; a positive is another random row of the same label, the row itself only
    where it is alone in its class, and different rows where the class has enough. Everything drawn depends on
    (seed, epoch, row, view) alone, so order, workers, caching and resuming change nothing, nor do `views` and
    `positives` change `images`.
    """

    def __init__(
        self,
        rows: LabeledDataset,
        transform: Transform,
        *,
        seed: int,
        views: int = 0,
        positives: int = 0,
        cache: str = "none",
    ) -> None:
        super().__init__(rows, transform, cache)
        self.seed, self.views, self.positives = seed, views, positives
        if positives:
            self.by_label = torch.argsort(rows.labels, stable=True)
            self.place = torch.empty_like(self.by_label)  # the inverse: where in `by_label` a row stands
            self.place[self.by_label] = torch.arange(len(rows))
            self.counts = rows.counts()

    def __getitem__(self, draw: Draw) -> Batch:
        """One row, as a `Batch` without its first axis."""
        images, target = self.loaded([draw.row], draw.epoch)
        keys = self.keys(torch.tensor([draw.row]), draw.epoch)
        finished = self.stages.finish(images.flatten(0, 1), keys.flatten()).unflatten(0, images.shape[:2])
        batch = self.batch(finished, target, torch.tensor([draw.row]))
        return Batch(*(None if each is None else each[0] for each in batch))

    def pictures(self, rows: Int64[Tensor, " b"], epoch: int) -> Int64[Tensor, "p b"]:
        own = rows.repeat(1 + self.views, 1)
        return torch.cat([own, self.chosen(rows, epoch)]) if self.positives else own

    def keys(self, rows: Int64[Tensor, " b"], epoch: int) -> Int64[Tensor, "p b"]:
        return keys_from([derive(self.seed, epoch, *purpose) for purpose in self.purposes], rows)

    @property
    def purposes(self) -> list[tuple[int, int]]:
        """What each picture of a row is, and which of its kind."""
        own = [(AUGMENT, number) for number in range(1 + self.views)]
        return own + [(POSITIVE, number) for number in range(self.positives)]

    def row(self, draw: Draw, rows: list[int], keys: Int64[Tensor, " p"]) -> tuple[list[Tensor], Tensor]:
        with private_generators() if self.stages.random else nullcontext(_ignored) as seed:

            def drawn(number: int, shown: Any) -> Any:
                seed(derive(self.seed, *draw, *self.purposes[number]))
                return self.stages.one(shown, keys[number : number + 1])

            more: list[Tensor] = []

            def with_views(shown: Any) -> Any:  # of an image that is decoded once
                own, *views = [drawn(number, shown) for number in range(1 + self.views)]
                more.extend(views)
                return own

            own, target = self.store.shown(draw.row, with_views)
            for number in range(1 + self.views, len(rows)):
                more.append(self.store.shown(rows[number], lambda shown, number=number: drawn(number, shown))[0])
        return [own, *more], target

    def chosen(self, rows: Int64[Tensor, " b"], epoch: int) -> Int64[Tensor, "m b"]:
        """Partners of each row: never itself unless it is alone, different ones where there are enough.

        The others of a class stand in a circle behind the row. As many different steps along it are drawn as there are
        positives: each a place among those that are still free.
        """
        label, place = self.rows.labels[rows], self.place[rows]
        count = self.counts[label]
        start = (self.counts.cumsum(0) - self.counts)[label]
        others = (count - 1).clamp(min=1)
        numbers = uniform(keys_from([derive(self.seed, epoch, CHOICE)], rows)[0], self.positives)
        enough = others >= self.positives
        taken: list[Tensor] = []
        for done, number in enumerate(numbers):
            step = below(number, (others - done).where(enough, others))
            for other in torch.stack(taken).sort(dim=0).values if taken else ():
                step = step + (enough & (step >= other))  # a free place counts those taken before it
            taken.append(step)
        steps = (1 + torch.stack(taken)).where(count > 1, 0)
        return self.by_label[start + (place - start + steps) % count]

    def batch(self, images: Shaped[Tensor, "p b c h w"], target: Tensor, row: Int64[Tensor, " b"]) -> Batch:
        own, views, positives = images.split([1, self.views, self.positives])
        views, positives = (_by_row(each) if len(each) else None for each in (views, positives))
        return Batch(own[0], target, index=row, views=views, positives=positives)


class EvalSet(RowSet):
    """Rows as evaluation shows them, always the same."""

    def __init__(self, rows: LabeledDataset, transform: Transform, *, cache: str = "none") -> None:
        super().__init__(rows, transform, cache)

    def pictures(self, rows: Int64[Tensor, " b"], epoch: int) -> Int64[Tensor, "1 b"]:
        return rows[None]

    def keys(self, rows: Int64[Tensor, " b"], epoch: int) -> Int64[Tensor, "1 b"]:
        return torch.zeros_like(rows)[None]  # nothing is drawn

    def row(self, draw: Draw, rows: list[int], keys: Int64[Tensor, " p"]) -> tuple[list[Tensor], Tensor]:
        own, target = self.store.shown(draw.row, lambda shown: self.stages.one(shown, keys))
        return [own], target


def _ignored(seed: int) -> None:
    pass


def _by_row(images: Shaped[Tensor, "p b c h w"]) -> Shaped[Tensor, "b p c h w"]:
    return images.transpose(0, 1).clone(memory_format=torch.contiguous_format)


def _refuse_sizes(name: str, tensors: Sequence[Tensor]) -> None:
    """Raises `ValueError` for images, or masks, that cannot be stacked."""
    shapes = sorted({tuple(each.shape) for each in tensors})
    if len(shapes) > 1:
        raise ValueError(
            f"{name} of the shapes {shapes[0]} and {shapes[1]} do not make one batch; "
            "where sizes differ, batch_size=1 is allowed"
        )
