"""Transformed data sets, with the views and positives that training draws for each image.

Every random draw depends on (seed, epoch, index, view) only.
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
from .random.keys import derive_keys, to_integers, uniform
from .random.seeds import derive, isolate_generators
from .sampler import EpochIndex
from .transforms.base import Transform

AUGMENT, POSITIVE, CHOICE = 2, 3, 4  # purposes of seeds; 1 is the order in `BatchSampler`


class Stacked(NamedTuple):
    """Samples after the parts of a transform that run per image; `p` images for each index, its own image first."""

    images: Shaped[Tensor, "p b c h w"]
    target: Tensor


class TransformedDataset(ABC, Dataset[Batch]):
    """A labeled data set, cached or not, after a transform."""

    def __init__(self, dataset: LabeledDataset | CachedDataset, transform: Transform) -> None:
        self.samples = dataset if isinstance(dataset, CachedDataset) else CachedDataset(dataset, transform)
        self.dataset, self.transform = self.samples.dataset, transform

    def __len__(self) -> int:
        return len(self.samples)

    def number_draw(self, drawn: EpochIndex) -> int:
        """The number of a draw, in place of an index: the index itself where an image comes for the first time.

        The draw of an image decides its augmentations. It is the index of the image, modulo the number of images.
        """
        return drawn.index + drawn.repeat * len(self)

    @abstractmethod
    def image_indices(self, indices: Int64[Tensor, " b"], epoch: int) -> Int64[Tensor, "p b"]:
        """The indices of the images that an epoch shows for these `indices`, or draws."""

    @abstractmethod
    def keys(self, indices: Int64[Tensor, " b"], epoch: int) -> Int64[Tensor, "p b"]:
        """The random keys of these images, see `random/keys.py`."""

    @abstractmethod
    def load_one(
        self, drawn: tuple[int, int], image_indices: list[int], keys: Int64[Tensor, " p"], seed: Callable[[int], None]
    ) -> tuple[list[Tensor], Tensor]:
        """The images for one index after `per_image`, and the target of the first.

        `drawn` is the epoch and the number of the draw. `seed` seeds the global generators.
        """

    def load(self, indices: Sequence[int], epoch: int) -> Stacked:
        """The samples at `indices`, stacked. Raises `ValueError` for images or masks that differ in size."""
        numbers = torch.tensor(indices)
        image_indices, keys = self.image_indices(numbers, epoch).T.tolist(), self.keys(numbers, epoch).T
        with self.open_generators() as seed:
            loaded = [
                self.load_one((epoch, draw), indices_of_sample, keys_of_sample, seed)
                for draw, indices_of_sample, keys_of_sample in zip(indices, image_indices, keys, strict=True)
            ]
        images = [image for number in range(keys.shape[1]) for image in (images[number] for images, _ in loaded)]
        targets = [target for _, target in loaded]
        _refuse_sizes("images", images)
        _refuse_sizes("target", targets)
        return Stacked(_stack(images).unflatten(0, (-1, len(indices))), torch.stack(targets))

    def open_generators(self) -> AbstractContextManager[Callable[[int], None]]:
        """Yields the `seed` argument of `load_one`, and restores the global generators afterwards."""
        return isolate_generators() if self.transform.draws_per_image else nullcontext(_draw_nothing)

    def make_batch(self, images: Shaped[Tensor, "p b c h w"], target: Tensor, index: Int64[Tensor, " b"]) -> Batch:
        """Makes the `Batch` that methods take from finished images."""
        return Batch(images[0], target, index=index)


class TrainSet(TransformedDataset):
    """Augmented images: for each index its own image, further `views` of it, and `positives`.

    A view is another draw of the augmentations. A positive is another random image with the same label. It is the image
    itself only if its class has no other image, and the positives differ if the class has enough images. Every random
    draw depends on (seed, epoch, index, view) only, and on how often the index came before in the epoch. So order,
    workers, caching and resuming change nothing, and `views` and `positives` do not change `images`.
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
        if positives and self.dataset.blocks is not None:
            raise ValueError(
                "this method shows each image beside others of its class, which may lie in any shard; data.stream and"
                " data.opener read few shards at a time; take another method, or read local shards without them"
            )
        if positives:
            self.by_label = torch.argsort(self.dataset.labels, stable=True)
            self.rank = torch.empty_like(self.by_label)  # the inverse: the position of each index in `by_label`
            self.rank[self.by_label] = torch.arange(len(self))
            self.counts = self.dataset.counts()

    def __getitem__(self, epoch_index: EpochIndex) -> Batch:
        """One index, as a `Batch` without its first axis."""
        draw = self.number_draw(epoch_index)
        images, target = self.load([draw], epoch_index.epoch)
        index = torch.tensor([epoch_index.index])
        keys = self.keys(torch.tensor([draw]), epoch_index.epoch)
        finished = self.transform.batch(images.flatten(0, 1), keys.flatten()).unflatten(0, images.shape[:2])
        batch = self.make_batch(finished, target, index)
        return Batch(*(None if value is None else value[0] for value in batch))

    def image_indices(self, indices: Int64[Tensor, " b"], epoch: int) -> Int64[Tensor, "p b"]:
        views = (indices % len(self)).repeat(1 + self.views, 1)
        return torch.cat([views, self.choose_positives(indices, epoch)]) if self.positives else views

    def keys(self, indices: Int64[Tensor, " b"], epoch: int) -> Int64[Tensor, "p b"]:
        return derive_keys([derive(self.seed, epoch, *purpose) for purpose in self.purposes], indices)

    @property
    def purposes(self) -> list[tuple[int, int]]:
        """The purpose and the number of each image of an index."""
        views = [(AUGMENT, number) for number in range(1 + self.views)]
        return views + [(POSITIVE, number) for number in range(self.positives)]

    def load_one(
        self, drawn: tuple[int, int], image_indices: list[int], keys: Int64[Tensor, " p"], seed: Callable[[int], None]
    ) -> tuple[list[Tensor], Tensor]:
        samples, purposes = [], self.purposes
        for number, i in enumerate(image_indices):
            if number == 0 or number > self.views:  # views reuse the image that was just decoded
                sample = self.samples[i]
            if self.transform.draws_per_image:
                seed(derive(self.seed, *drawn, *purposes[number]))
            with self.dataset.name_errors(i):
                samples.append(self.transform.per_image(sample, keys[number : number + 1]))
        return [image for image, _ in samples], samples[0].target

    def choose_positives(self, indices: Int64[Tensor, " b"], epoch: int) -> Int64[Tensor, "m b"]:
        """Draws the positives of each index: distinct other images of its class, as far as the class has enough.

        The images of a class form a circle. Each positive is a random number of steps from the index along the circle,
        drawn from the numbers that are still free.
        """
        label, rank = (values[indices % len(self)] for values in (self.dataset.labels, self.rank))
        count = self.counts[label]
        start = (self.counts.cumsum(0) - self.counts)[label]
        others = (count - 1).clamp(min=1)
        numbers = uniform(derive_keys([derive(self.seed, epoch, CHOICE)], indices)[0], self.positives)
        enough = others >= self.positives
        taken: list[Tensor] = []
        for done, number in enumerate(numbers):
            step = to_integers(number, (others - done).where(enough, others))
            for other in torch.stack(taken).sort(dim=0).values if taken else ():
                step = step + (enough & (step >= other))  # skip the numbers that are taken
            taken.append(step)
        steps = (1 + torch.stack(taken)).where(count > 1, 0)
        return self.by_label[start + (rank - start + steps) % count]

    def make_batch(self, images: Shaped[Tensor, "p b c h w"], target: Tensor, index: Int64[Tensor, " b"]) -> Batch:
        first_view, views, positives = images.split([1, self.views, self.positives])
        return Batch(first_view[0], target, index=index, views=_batch_first(views), positives=_batch_first(positives))


class EvalSet(TransformedDataset):
    """Images as evaluation shows them, without randomness."""

    def image_indices(self, indices: Int64[Tensor, " b"], epoch: int) -> Int64[Tensor, "1 b"]:
        return indices[None]

    def keys(self, indices: Int64[Tensor, " b"], epoch: int) -> Int64[Tensor, "1 b"]:
        return torch.zeros_like(indices)[None]  # nothing is drawn

    def load_one(
        self, drawn: tuple[int, int], image_indices: list[int], keys: Int64[Tensor, " p"], seed: Callable[[int], None]
    ) -> tuple[list[Tensor], Tensor]:
        i = image_indices[0]
        sample = self.samples[i]
        if self.transform.draws_per_image:  # of a user's data set, whose images come finished
            seed(derive(i))
        with self.dataset.name_errors(i):
            image, target = self.transform.per_image(sample, keys)
        return [image], target


def _draw_nothing(seed: int) -> None:
    pass


def _batch_first(images: Shaped[Tensor, "p b c h w"]) -> Shaped[Tensor, "b p c h w"] | None:
    return images.transpose(0, 1).clone(memory_format=torch.contiguous_format) if len(images) else None


def _stack(images: Sequence[Shaped[Tensor, "c h w"]]) -> Shaped[Tensor, "b c h w"]:
    """Stacks images; those with a pixel's channels side by side stay so, as turning them takes far longer."""
    if all(image.stride(0) == 1 for image in images):
        return torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)
    return torch.stack([*images])


def _refuse_sizes(name: str, tensors: Sequence[Tensor]) -> None:
    """Raises `ValueError` for images or masks that cannot be stacked."""
    shapes = sorted({tuple(tensor.shape) for tensor in tensors})
    if len(shapes) > 1:
        raise ValueError(
            f"{name} of the shapes {shapes[0]} and {shapes[1]} do not make one batch; "
            "where sizes differ, batch_size=1 is allowed"
        )
