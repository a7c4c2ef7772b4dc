"""Any number of classes for each image."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from ..config.recipe import DataPart
from ..data import read_image
from ..data.datasets.base import LabelCounts
from ..data.datasets.columns import WantedColumns
from ..data.datasets.conversion import Stored
from ..data.datasets.given import open_given_labels
from ..data.datasets.label_map import IGNORE_INDEX
from ..data.datasets.mask_folder import is_mask_folder
from ..data.datasets.multi_label_tables import MULTI_LABEL_READER, open_linked_folders, open_multi_label_table
from ..data.datasets.parquet import open_hub, open_parquet
from ..data.datasets.scenes import open_digit_scenes
from ..data.datasets.shards import open_shards
from ..data.datasets.splits import DatasetSplits
from ..data.task_data import Opener
from ..data.transforms.base import Transform
from ..metrics.multi_label import (
    HALF,
    MultiLabelCollector,
    MultiLabelSample,
    choose_thresholds,
    say_yes,
)
from ..mixing import cutmix, mixup
from ..runs.student import StudentCard
from ..task import Batch, LabelChecks, Task
from ..task.label_loss import MultiLabelLoss, weigh_positives
from .base import Column, Defaults, ImageFile, Mixer, Prediction, Predictor, select_largest, show_picture
from .classification import Classification


def _open_digit_scenes(settings: DataPart, name: str) -> DatasetSplits:
    return open_digit_scenes()


def _open_folders(settings: DataPart, folder: str) -> DatasetSplits:
    if is_mask_folder(folder):
        raise ValueError(f"{folder} holds images with masks, not class folders; task=segmentation learns from masks")
    return open_linked_folders(folder)


def _open_table(settings: DataPart, path: str) -> DatasetSplits:
    return open_multi_label_table(
        path,
        image_column=settings.image_column,
        label_column=settings.label_column,
        separator=settings.separator,
    )


def _open_parquet(settings: DataPart, path: str) -> DatasetSplits:
    return open_parquet(path, WantedColumns.of(settings, MULTI_LABEL_READER))


def _open_hub(settings: DataPart, name: str) -> DatasetSplits:
    return open_hub(name, WantedColumns.of(settings, MULTI_LABEL_READER), download=settings.download)


def _open_shards(settings: DataPart, location: str) -> DatasetSplits:
    return open_shards(settings, location, "labels")


def _mixup(batch: Batch, num_classes: int, alpha: float) -> Batch:
    return put_labels(batch, *mixup(batch.images, batch.target, num_classes, alpha, find_probabilities(batch)))


def _cutmix(batch: Batch, num_classes: int, alpha: float) -> Batch:
    return put_labels(batch, *cutmix(batch.images, batch.target, num_classes, alpha, find_probabilities(batch)))


def find_probabilities(batch: Batch) -> Float[Tensor, "b 2*k"]:
    """The labels as probabilities, 0 where they are not known, and behind them 1 where that is so."""
    unknown = batch.target < 0
    labels = batch.target.float() if batch.soft_target is None else batch.soft_target
    return torch.cat([labels.where(~unknown, 0), unknown.float()], dim=1)


def put_labels(batch: Batch, images: Float[Tensor, "b c h w"], mixed: Float[Tensor, "b 2*k"]) -> Batch:
    """The batch with mixed images and labels; what is not known of one of two images is not of their mixture."""
    soft_target, unknown = mixed.chunk(2, dim=1)
    target = batch.target.where(unknown == 0, IGNORE_INDEX)
    return batch._replace(images=images, target=target, soft_target=soft_target.contiguous())


def predict_shown(logits: Float[Tensor, "b k"]) -> Int64[Tensor, "b k"]:
    """1 for each class with a probability above one half."""
    return (logits > 0).long()


def check_types(batch: Batch, task: Task) -> None:
    """Raises `ValueError` for labels that are no integers (b, k)."""
    if batch.target.dtype != torch.int64:
        raise ValueError(f"labels are {batch.target.dtype}; give 0 or 1 for each class as int64, target.long()")
    for name, labels in (("labels", batch.target), ("soft_target", batch.soft_target)):
        wanted = (len(batch.images), task.num_classes)
        if labels is not None and tuple(labels.shape) != wanted:
            raise ValueError(f"{name} {tuple(labels.shape)} must be {wanted}: 0 or 1 for each class of each image")


def check_values(batch: Batch, task: Task) -> None:
    """Raises `ValueError` for labels other than 0, 1 and the task's `ignore_index`, and for probabilities beyond."""
    known = batch.target[batch.target != task.ignore_index]
    if not bool(((known == 0) | (known == 1)).all()):
        low, high = (int(value) for value in known.aminmax())
        raise ValueError(
            f"labels run from {low} to {high}; give 1 where an image shows a class, 0 where it does not, and "
            f"{task.ignore_index} where that is not known"
        )
    if batch.soft_target is not None and not bool(((batch.soft_target >= 0) & (batch.soft_target <= 1)).all()):
        raise ValueError("soft_target must hold a probability between 0 and 1 for each class")


class MultiLabel(Classification):
    """Any number of classes for each image, none included; images are shown as those with one class."""

    output, target = "image", "multi_label"
    losses, label_loss = ("bce", "focal", "asymmetric"), MultiLabelLoss
    soft_label_loss = staticmethod(MultiLabelLoss.soft_label_loss)
    predict = staticmethod(predict_shown)
    label_checks = LabelChecks(check_types, check_values)
    defaults = Defaults(data="digit_scenes", student="cifar:resnet20", lr=0.1, batch_size=32)
    sources: Mapping[str, Opener] = {
        "digit_scenes": _open_digit_scenes,
        "object": open_given_labels,
        "folder": _open_folders,
        "table": _open_table,
        "parquet": _open_parquet,
        "shards": _open_shards,
        "hf": _open_hub,
    }
    sources_in_words = (
        "digit_scenes, a folder of class folders with links, a .csv, .tsv, .jsonl, .parquet or .tar file, or hf:NAME"
    )
    other_labels = "has one class for each image, not several; task=classification learns from it"
    takes_columns = True
    idle_settings = ("classes", "void", "palette", "short_side", "window")  # they concern masks
    mixers = {"mixup": Mixer(_mixup, soft=True), "cutmix": Mixer(_cutmix, soft=True)}
    chooses_thresholds = True
    columns = (
        Column("map", "mAP, %"),
        Column("f1_macro", "F1 macro, %"),
        Column("f1_micro", "F1 micro, %"),
        Column("nll", "NLL, nats", ".3f", scale=1.0),
        Column("ece", "ECE, %"),
    )
    rare_columns = (
        Column("thresholds_f1_macro", "F1 macro at thresholds, %"),
        Column("thresholds_f1_micro", "F1 micro at thresholds, %"),
    )
    class_scores = {"ap": "AP"}

    def metric(self, num_classes: int, ignore_index: int, *, thresholds: Sequence[float] | None = None) -> nn.Module:
        from ..metrics.multi_label_metric import MultiLabelMetric  # torchmetrics loads scipy, transformers and more

        return MultiLabelMetric(num_classes, thresholds=thresholds, ignore_index=ignore_index)

    def outcomes(self, num_classes: int, ignore_index: int) -> MultiLabelCollector:
        return MultiLabelCollector(num_classes, ignore_index=ignore_index)

    def choose_thresholds(self, sample: MultiLabelSample) -> tuple[float, ...]:
        return choose_thresholds(sample.logits, sample.target)

    def weigh_classes(self, counts: LabelCounts, images: int, rule: Literal["auto", "effective"]) -> list[float]:
        """How much more the images without a class weigh together than those that show it."""
        return weigh_positives(counts.images, images if counts.known is None else counts.known, rule)

    def predictor(self, student: nn.Module, card: StudentCard, run: Path, out: Path | None) -> Predictor:
        if out is not None:
            raise ValueError(f"--out={out} has no effect: {run} names the classes of images, and writes no masks")
        return Labeler(student, card, self.eval_transform(card.data))

    def say_answer(self, logits: Float[Tensor, " k"], card: StudentCard) -> str:
        return ", ".join(name_shown(logits.float(), card)) or "no class"

    def export_metadata(self, card: StudentCard) -> dict[str, str]:
        """What makes probabilities of the scores, and from which one on an image is said to show each class."""
        return {
            "activation": json.dumps("sigmoid"),
            "thresholds": json.dumps(get_thresholds(card)),
        }


def get_thresholds(card: StudentCard) -> Sequence[float]:
    """The thresholds of a run's student; 0.5 where it had no validation images to choose them on."""
    return card.thresholds or [HALF] * len(card.classes)


def find_shown(logits: Float[Tensor, "*n k"], card: StudentCard) -> Bool[Tensor, "*n k"]:
    """Which classes images show by these scores."""
    return say_yes(logits, get_thresholds(card))


def name_shown(logits: Float[Tensor, " k"], card: StudentCard) -> list[str]:
    """The classes that an image shows by these scores."""
    return [card.classes[k] for k in find_shown(logits, card).nonzero().flatten().tolist()]


class Labeler(Predictor):
    """Names the `top` classes of an image with their probabilities, or all that reach their thresholds."""

    default_top = None

    def __init__(self, student: nn.Module, card: StudentCard, transform: Transform) -> None:
        self.student, self.card, self.transform = student, card, transform
        self.notes = [f"an image shows a class from its threshold on, {self.describe_thresholds()}"]
        if card.temperature is not None:
            self.notes.append(f"probabilities are at the temperature {card.temperature:.4g} of student.json")

    def describe_thresholds(self) -> str:
        thresholds = self.card.thresholds
        if thresholds is None:
            return "0.5"
        return f"{min(thresholds):.2g} to {max(thresholds):.2g}, chosen on the run's validation images"

    def predict(self, image: ImageFile, top: int | None) -> Prediction:
        megapixels = self.card.data.max_megapixels
        picture = read_image(str(image.path), max_megapixels=megapixels, channels=self.transform.channels)
        return Prediction(image.path, self.rank_classes(picture, top), {})

    def rank_classes(self, picture: Stored | Tensor, top: int | None) -> list[tuple[str, float]]:
        card = self.card
        logits = self.student(show_picture(picture, self.transform, self.student))[0].float()
        probabilities = (logits / (card.temperature or 1.0)).sigmoid()
        ranked = select_largest(probabilities, card.classes, len(card.classes) if top is None else top)
        if top is None:
            shown = name_shown(logits, card)
            ranked = [(name, probability) for name, probability in ranked if name in shown]
        return ranked
