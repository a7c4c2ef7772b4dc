"""A task that the package does not have: images that show any number of classes at once."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchmetrics import Metric

from selfdistill.data.datasets.base import LabeledDataset
from selfdistill.data.datasets.splits import DatasetSplits
from selfdistill.tasks.base import Column, Defaults, ImageFile, Prediction, Predictor, select_largest
from selfdistill.tasks.classification import Classification

CORNERS = {"red": (0, 0), "green": (0, 8), "blue": (8, 0)}  # each class is a bright square in a corner of its own


class Squares(LabeledDataset):
    """Images of 16x16 pixels and, for each, which squares it shows, (n, 3) zeros and ones."""

    shares = "the images of"

    def __init__(self, images: list[Image.Image], labels: Tensor) -> None:
        self.images, self.labels, self.classes, self.mirrorable = images, labels, tuple(CORNERS), False

    def source(self, i: int) -> Image.Image:
        return self.images[i]

    def name(self, i: int) -> str:
        return f"row {i} of squares"

    def counts(self) -> Tensor:
        return self.labels.sum(dim=0).long()

    def groups(self) -> list[Tensor]:
        return [torch.arange(len(self))]

    def find_present_classes(self) -> list[int]:
        return self.counts().nonzero().flatten().tolist()

    def subset(self, indices: Tensor) -> "Squares":
        return Squares([self.images[i] for i in indices.tolist()], self.labels[indices])


def draw_squares(count: int, seed: int) -> Squares:
    random = torch.Generator().manual_seed(seed)
    labels = (torch.rand(count, len(CORNERS), generator=random) < 0.5).float()
    pixels = torch.randint(60, (count, 16, 16, 3), generator=random, dtype=torch.uint8)
    for k, (top, left) in enumerate(CORNERS.values()):
        pixels[labels[:, k] == 1, top : top + 8, left : left + 8, k] += 150
    return Squares([Image.fromarray(image.numpy()) for image in pixels], labels)


def open_squares(settings, name) -> DatasetSplits:
    return DatasetSplits({"train": draw_squares(96, seed=0), "val": draw_squares(40, seed=1)})


class MultiLabelScores(NamedTuple):
    """How well a student labels `count` images."""

    exact: float  # share of the images of which every class is right
    labels: float  # share of the classes of all images that are right
    count: int

    @property
    def main(self) -> float:
        return self.exact

    @property
    def finite(self) -> bool:
        return True

    def sentence(self) -> str:
        return f"exact {self.exact:.2%}  labels {self.labels:.2%}"


class MultiLabelMetric(Metric):
    """`MultiLabelScores` of scores and labels (b, k)."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        for name in ("exact", "labels", "count", "total"):
            self.add_state(name, torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits: Tensor, target: Tensor) -> None:
        right = (logits > 0) == (target > 0)
        self.exact += right.all(dim=1).sum()
        self.labels += right.sum()
        self.total += right.numel()
        self.count += len(right)

    def compute(self) -> MultiLabelScores:
        return MultiLabelScores((self.exact / self.count).item(), (self.labels / self.total).item(), int(self.count))


def binary_cross_entropy(logits, target, soft_target=None, ignore_index=-100) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, target)


def find_shown(logits: Tensor) -> Tensor:
    return (logits > 0).float()


class MultiLabel(Classification):
    """Any number of classes for each image; images are shown as those with one label."""

    output, target = "image", "shown"
    criterion, predict = staticmethod(binary_cross_entropy), staticmethod(find_shown)
    defaults = Defaults(data="squares", student="cifar:resnet8", lr=0.05, batch_size=16)
    sources = {"squares": open_squares}
    sources_in_words = "squares"
    other_labels = "has one class for each image, not several"
    mixers = {}
    columns = (Column("exact", "exact, %"), Column("labels", "labels, %"))

    def metric(self, num_classes: int, ignore_index: int) -> MultiLabelMetric:
        return MultiLabelMetric()

    def predictor(self, student, card, run, out) -> Predictor:
        return Labeler(student, card.classes, self.eval_transform(card.data))


class Labeler(Predictor):
    """Names the classes with their probabilities, which do not add up to one."""

    def __init__(self, student, classes, transform) -> None:
        self.student, self.classes, self.transform = student, classes, transform

    def predict(self, image: ImageFile, top: int) -> Prediction:
        with Image.open(image.path) as picture:
            logits = self.student(self.transform.show(picture)[None])[0]
        return Prediction(image.path, select_largest(logits.sigmoid(), self.classes, top), {})
