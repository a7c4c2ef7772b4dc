"""What batches are made of: images with targets, and the views and positives that training draws for each.

Everything drawn depends on (seed, epoch, index, view) alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor
from torch.utils.data import Dataset

from ..task import Batch
from .cache.cached import CachedDataset
from .datasets.base import LabeledDataset
from .random.keys import below, keys_from, uniform
from .random.seeds import derive, private_generators
from .sampler import EpochIndex
from .transforms.base import Transform

AUGMENT, POSITIVE, CHOICE = 2, 3, 4  # what a seed is for; 1 is the order of `BatchSampler`


class Stacked(NamedTuple):
    """Samples after the parts of a transform that are done image by image; `p` images of each, its own one first."""

    images: Shaped[Tensor, "p b c h w"]
    target: Tensor


class TransformedDataset(ABC, Dataset[Batch]):
    """A labeled data set, cached or not, as a transform gives it."""

    def __init__(self, dataset: LabeledDataset | CachedDataset, transform: Transform) -> None:
        self.samples = dataset if isinstance(dataset, CachedDataset) else CachedDataset(dataset, transform)
        self.dataset, self.transform = self.samples.dataset, transform

    def __len__(self) -> int:
        return len(self.samples)

    @abstractmethod
    def image_indices(self, indices: Int64[Tensor, " b"], epoch: int) -> Int64[Tensor, "p b"]:
        """Which images one epoch shows for some indices."""

    @abstractmethod
    def keys(self, indices: Int64[Tensor, " b"], epoch: int) -> Int64[Tensor, "p b"]:
        """What these images draw from, see `random/keys.py`."""

    @abstractmethod
    def load_one(
        self, epoch: int, image_indices: list[int], keys: Int64[Tensor, " p"], seed: Callable[[int], None]
    ) -> tuple[list[Tensor], Tensor]:
        """The images shown for one index, as far as they are made one by one, and the target of the first.

        `seed` seeds the global generators.
        """

    def load(self, indices: Sequence[int], epoch: int) -> Stacked:
        """The samples at some indices, stacked. Raises `ValueError` for images, or masks, that differ in size."""
        numbers = torch.tensor(indices)
        image_indices, keys = self.image_indices(numbers, epoch).T.tolist(), self.keys(numbers, epoch).T
        with self.open_generators() as seed:
            loaded = [
                self.load_one(epoch, shown, keys_of_shown, seed)
                for shown, keys_of_shown in zip(image_indices, keys, strict=True)
            ]
        images = [image for number in range(keys.shape[1]) for image in (images[number] for images, _ in loaded)]
        targets = [target for _, target in loaded]
        _refuse_sizes("images", images)
        _refuse_sizes("target", targets)
        return Stacked(torch.stack(images).unflatten(0, (-1, len(indices))), torch.stack(targets))

    def open_generators(self) -> AbstractContextManager[Callable[[int], None]]:
        """Gives `seed` of `load_one`, and keeps what lies outside from being drawn from."""
        return private_generators() if self.transform.draws_per_image else nullcontext(_draw_nothing)

    def make_batch(self, images: Shaped[Tensor, "p b c h w"], target: Tensor, index: Int64[Tensor, " b"]) -> Batch:
        """Finished images as methods take them."""
        return Batch(images[0], target, index=index)


class TrainSet(TransformedDataset):
    """Augmented images: for each index its own, further `views` of that, and `positives`.

    A view is one further draw of the augmentations. A positive is another random image of the same label: the image
    itself only where it is alone in its class, and different ones where the class has enough. Everything drawn depends
    on (seed, epoch, index, view) alone, so order, workers, caching and resuming change nothing, nor do `views` and
    `positives` change `images`.
    """

    def __init__(
        self,
        dataset: LabeledDataset | CachedDataset,
        transform: Transform,
        *,
        seed: int,
        views: int = 0,
        positives: int = 0,
    ) -> None:
        super().__init__(dataset, transform)
        self.seed, self.views, self.positives = seed, views, positives
        if positives:
            self.by_label = torch.argsort(self.dataset.labels, stable=True)
            self.rank = torch.empty_like(self.by_label)  # the inverse: where in `by_label` an index stands
            self.rank[self.by_label] = torch.arange(len(self))
            self.counts = self.dataset.counts()

    def __getitem__(self, epoch_index: EpochIndex) -> Batch:
        """One index, as a `Batch` without its first axis."""
        images, target = self.load([epoch_index.index], epoch_index.epoch)
        index = torch.tensor([epoch_index.index])
        keys = self.keys(index, epoch_index.epoch)
        finished = self.transform.batch(images.flatten(0, 1), keys.flatten()).unflatten(0, images.shape[:2])
        batch = self.make_batch(finished, target, index)
        return Batch(*(None if value is None else value[0] for value in batch))

    def image_indices(self, indices: Int64[Tensor, " b"], epoch: int) -> Int64[Tensor, "p b"]:
        own = indices.repeat(1 + self.views, 1)
        return torch.cat([own, self.choose_positives(indices, epoch)]) if self.positives else own

    def keys(self, indices: Int64[Tensor, " b"], epoch: int) -> Int64[Tensor, "p b"]:
        return keys_from([derive(self.seed, epoch, *purpose) for purpose in self.purposes], indices)

    @property
    def purposes(self) -> list[tuple[int, int]]:
        """What each image of an index is, and which of its kind."""
        views = [(AUGMENT, number) for number in range(1 + self.views)]
        return views + [(POSITIVE, number) for number in range(self.positives)]

    def load_one(
        self, epoch: int, image_indices: list[int], keys: Int64[Tensor, " p"], seed: Callable[[int], None]
    ) -> tuple[list[Tensor], Tensor]:
        samples, purposes = [], self.purposes
        for number, i in enumerate(image_indices):
            if number == 0 or number > self.views:  # views show the image again that was just decoded
                sample = self.samples[i]
            if self.transform.draws_per_image:
                seed(derive(self.seed, epoch, image_indices[0], *purposes[number]))
            with self.dataset.naming_errors(i):
                samples.append(self.transform.per_image(sample, keys[number : number + 1]))
        return [image for image, _ in samples], samples[0].target

    def choose_positives(self, indices: Int64[Tensor, " b"], epoch: int) -> Int64[Tensor, "m b"]:
        """Positives of each index: never itself unless it is alone, different ones where there are enough.

        The others of a class stand in a circle behind the index. As many different steps along it are drawn as there
        are positives: each is a number among those that are still free.
        """
        label, rank = self.dataset.labels[indices], self.rank[indices]
        count = self.counts[label]
        start = (self.counts.cumsum(0) - self.counts)[label]
        others = (count - 1).clamp(min=1)
        numbers = uniform(keys_from([derive(self.seed, epoch, CHOICE)], indices)[0], self.positives)
        enough = others >= self.positives
        taken: list[Tensor] = []
        for done, number in enumerate(numbers):
            step = below(number, (others - done).where(enough, others))
            for other in torch.stack(taken).sort(dim=0).values if taken else ():
                step = step + (enough & (step >= other))  # a free number counts those taken before it
            taken.append(step)
        steps = (1 + torch.stack(taken)).where(count > 1, 0)
        return self.by_label[start + (rank - start + steps) % count]

    def make_batch(self, images: Shaped[Tensor, "p b c h w"], target: Tensor, index: Int64[Tensor, " b"]) -> Batch:
        own, views, positives = images.split([1, self.views, self.positives])
        return Batch(own[0], target, index=index, views=_batch_first(views), positives=_batch_first(positives))


class EvalSet(TransformedDataset):
    """Images as evaluation shows them, always the same."""

    def image_indices(self, indices: Int64[Tensor, " b"], epoch: int) -> Int64[Tensor, "1 b"]:
        return indices[None]

    def keys(self, indices: Int64[Tensor, " b"], epoch: int) -> Int64[Tensor, "1 b"]:
        return torch.zeros_like(indices)[None]  # nothing is drawn

    def load_one(
        self, epoch: int, image_indices: list[int], keys: Int64[Tensor, " p"], seed: Callable[[int], None]
    ) -> tuple[list[Tensor], Tensor]:
        i = image_indices[0]
        sample = self.samples[i]
        with self.dataset.naming_errors(i):
            image, target = self.transform.per_image(sample, keys)
        return [image], target


def _draw_nothing(seed: int) -> None:
    pass


def _batch_first(images: Shaped[Tensor, "p b c h w"]) -> Shaped[Tensor, "b p c h w"] | None:
    return images.transpose(0, 1).clone(memory_format=torch.contiguous_format) if len(images) else None


def _refuse_sizes(name: str, tensors: Sequence[Tensor]) -> None:
    """Raises `ValueError` for images, or masks, that cannot be stacked."""
    shapes = sorted({tuple(tensor.shape) for tensor in tensors})
    if len(shapes) > 1:
        raise ValueError(
            f"{name} of the shapes {shapes[0]} and {shapes[1]} do not make one batch; "
            "where sizes differ, batch_size=1 is allowed"
        )
