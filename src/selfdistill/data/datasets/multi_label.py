"""Images that show any number of classes."""

import copy
from typing import Any, ClassVar

import torch
from jaxtyping import Int64
from torch import Tensor

from ...errors import count_of
from .base import LabelCounts, LabeledDataset, RelabeledDataset
from .conversion import Stored
from .image_io import Format


def describe_shown(labels: Int64[Tensor, "n k"]) -> list[str]:
    """A sentence on images that show no class, one where no image shows several, and one on labels not known."""
    shown = (labels == 1).sum(dim=1)
    empty, most = int((labels == 0).all(dim=1).sum()), int(shown.max()) if len(shown) else 0
    notes = [f"{empty} of {count_of(len(labels), 'image')} {'shows' if empty == 1 else 'show'} no class"] * (empty > 0)
    unknown = int((labels < 0).sum())
    share = f"{unknown:,} of {labels.numel():,} labels ({unknown / max(labels.numel(), 1):.0%})"
    notes += [f"{share} are marked as not known, and count for nothing"] * (unknown > 0)
    return notes + ["no image shows more than one class; task=classification is made for that"] * (
        most == 1 and not unknown
    )


class MultiLabelDataset(RelabeledDataset):
    """The images of a data set with other labels: `labels` (n, k) are 1 where an image shows a class, else 0.

    `IGNORE_INDEX` stands where it is not known.
    """

    shares: ClassVar[str] = "the images of"

    def __init__(self, images: LabeledDataset, labels: Int64[Tensor, "n k"], *, classes: tuple[str, ...]) -> None:
        super().__init__(images)
        self.labels, self.classes = labels, classes

    def size(self, i: int) -> int:
        return self.images.size(i)

    def image(self, i: int, draft_side: int = 0) -> Stored:
        return self.images.image(i, draft_side)

    def format(self, i: int, *, decode: bool = False) -> Format:
        return self.images.format(i, decode=decode)

    def settings(self) -> dict[str, Any]:
        return self.images.settings()

    def find_classes(self, i: int) -> list[int]:
        return (self.labels[i] == 1).nonzero().flatten().tolist()

    def counts(self) -> Int64[Tensor, " k"]:
        """Images that show each class."""
        return (self.labels == 1).sum(dim=0)

    def count_labels(self) -> LabelCounts:
        counts = self.counts()
        return LabelCounts(counts, counts, known=(self.labels >= 0).sum(dim=0))

    def is_all_ignored(self) -> bool:
        return len(self) > 0 and not bool((self.labels >= 0).any())

    def groups(self) -> list[Int64[Tensor, " members"]]:
        """The indices of the images by their rarest class, so that each share has images of every class.

        Images that show nothing, and those of a group of one, are a group of their own.
        """
        counts = self.counts()
        rarest = counts.where(self.labels > 0, len(self) + 1).argmin(dim=1)
        rarest[~(self.labels == 1).any(dim=1)] = len(counts)
        sizes = torch.bincount(rarest, minlength=len(counts) + 1)
        rarest[sizes[rarest] < 2] = len(counts)
        groups = [members for k in range(len(counts) + 1) if len(members := (rarest == k).nonzero().flatten())]
        if len(groups) > 1 and len(groups[-1]) < 2:  # the one image that is left joins the others of the last group
            *groups, one_before, last = groups
            groups.append(torch.cat([one_before, last]).sort().values)
        return groups

    def describe_labels(self) -> list[str]:
        return [*describe_shown(self.labels), *super().describe_labels()]

    def find_first(self, k: int) -> int:
        return int((self.labels[:, k] == 1).nonzero()[0])

    def find_present_classes(self) -> list[int]:
        return self.counts().nonzero().flatten().tolist()

    def subset(self, indices: Int64[Tensor, " n"]) -> "MultiLabelDataset":
        subset = MultiLabelDataset(self.images.subset(indices), self.labels[indices], classes=self.classes)
        subset.max_megapixels, subset.channels = self.max_megapixels, self.channels
        return subset

    def renumber(self, classes: tuple[str, ...], indices: Int64[Tensor, " k"]) -> "MultiLabelDataset":
        renumbered = copy.copy(self)
        labels = self.labels.new_zeros(len(self), len(classes))
        known = indices >= 0
        labels[:, indices[known]] = self.labels[:, known]
        renumbered.classes, renumbered.labels = classes, labels
        return renumbered
