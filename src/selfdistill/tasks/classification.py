"""One class for each image."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from ..config.recipe import DataPart
from ..data import image_shape, read_image
from ..data.datasets.columns import WantedColumns
from ..data.datasets.conversion import PixelFormat, Stored
from ..data.datasets.digits import open_digits
from ..data.datasets.given import open_given
from ..data.datasets.image_folder import open_folder
from ..data.datasets.mask_folder import is_mask_folder
from ..data.datasets.parquet import open_hub, open_parquet
from ..data.datasets.shards import open_shards
from ..data.datasets.splits import DatasetSplits
from ..data.datasets.table import open_table
from ..data.datasets.torchvision import open_torchvision
from ..data.task_data import Opener, Show, Size
from ..data.transforms import image
from ..data.transforms.base import Transform
from ..mixing import cutmix, mixup
from ..runs.student import StudentCard
from ..task import Batch
from .base import Column, Defaults, ImageFile, Mixer, Prediction, Predictor, TaskKind, select_largest, show_picture

SCORED_VALUES = 2**21  # pixel values that are scored at a time


def _open_class_folders(settings: DataPart, folder: str) -> DatasetSplits:
    if is_mask_folder(folder):
        raise ValueError(f"{folder} holds images with masks, not class folders; task=segmentation learns from masks")
    return open_folder(folder)


def _open_table(settings: DataPart, path: str) -> DatasetSplits:
    return open_table(path, image_column=settings.image_column, label_column=settings.label_column)


def _open_parquet(settings: DataPart, path: str) -> DatasetSplits:
    return open_parquet(path, WantedColumns.of(settings))


def _open_hub(settings: DataPart, name: str) -> DatasetSplits:
    return open_hub(name, WantedColumns.of(settings), download=settings.download)


def _open_torchvision(settings: DataPart, name: str) -> DatasetSplits:
    return open_torchvision(name, settings.root, download=settings.download)


def _open_digits(settings: DataPart, name: str) -> DatasetSplits:
    return open_digits()


def _mixup(batch: Batch, num_classes: int, alpha: float) -> Batch:
    images, soft_target = mixup(batch.images, batch.target, num_classes, alpha, batch.soft_target)
    return batch._replace(images=images, soft_target=soft_target)


def _cutmix(batch: Batch, num_classes: int, alpha: float) -> Batch:
    images, soft_target = cutmix(batch.images, batch.target, num_classes, alpha, batch.soft_target)
    return batch._replace(images=images, soft_target=soft_target)


class Classification(TaskKind):
    """One class for each image."""

    output, target = "image", "class"
    losses = ("cross_entropy", "focal", "bce")
    defaults = Defaults(data="digits", student="cifar:resnet20", lr=0.1, batch_size=128)
    sources: Mapping[str, Opener] = {
        "digits": _open_digits,
        "object": open_given,
        "folder": _open_class_folders,
        "table": _open_table,
        "parquet": _open_parquet,
        "shards": open_shards,
        "hf": _open_hub,
        "torchvision": _open_torchvision,
    }
    sources_in_words = (
        "digits, a folder of class folders, a .csv, .tsv, .jsonl, .parquet or .tar file, hf:NAME or torchvision:NAME"
    )
    other_labels = "has a label for every pixel, not for every image; set task=segmentation to learn it"
    idle_settings = (
        "classes",
        "void",
        "palette",
        "short_side",
        "window",
        "separator",
    )  # they concern masks, and several labels
    mixers = {"mixup": Mixer(_mixup, soft=True), "cutmix": Mixer(_cutmix, soft=True)}
    columns = (
        Column("top1", "top-1, %"),
        Column("nll", "NLL, nats", ".3f", scale=1.0),
        Column("ece", "ECE, %"),
    )
    rare_columns = (Column("balanced_accuracy", "balanced, %"),)

    def choose_size(self, settings: DataPart, sizes: set[Size]) -> Size:
        return image.choose_default_size(sizes)

    def choose_augmentations(self, settings: DataPart, size: Size, *, mirrorable: bool) -> list[str]:
        return image.choose_augmentation_names(settings.augment, size, mirrorable)

    def check_augmentations(self, names: Sequence[str], size: Size, pixels: PixelFormat) -> None:
        image.create_steps(names, size, pixels)

    def statistics_view(self, settings: DataPart, size: Size) -> tuple[Show, int]:
        return image.statistics_view(size)

    def train_transform(self, settings: DataPart) -> Transform:
        return image.train_transform(settings)

    def eval_transform(self, settings: DataPart) -> Transform:
        return image.eval_transform(settings)

    def metric(self, num_classes: int, ignore_index: int) -> nn.Module:
        from ..metrics.classification import ClassificationMetric  # torchmetrics loads scipy, transformers and more

        return ClassificationMetric(num_classes)

    def eval_batch_size(self, settings: DataPart) -> int:
        """64 to 512, fewer the larger the images are."""
        return min(max(SCORED_VALUES // math.prod(image_shape(settings)), 64), 512)

    def predictor(self, student: nn.Module, card: StudentCard, run: Path, out: Path | None) -> Predictor:
        if out is not None:
            raise ValueError(f"--out={out} has no effect: {run} holds a classifier, which writes no masks")
        return Classifier(
            student,
            card.classes,
            self.eval_transform(card.data),
            max_megapixels=card.data.max_megapixels,
            temperature=card.temperature,
        )


class Classifier(Predictor):
    """Names the most probable classes of a whole image, with their probabilities."""

    def __init__(
        self,
        student: nn.Module,
        classes: Sequence[str],
        transform: Transform,
        *,
        max_megapixels: float,
        temperature: float | None = None,
    ) -> None:
        self.student, self.classes, self.transform = student, classes, transform
        self.max_megapixels, self.temperature = max_megapixels, temperature or 1.0
        if temperature is not None:
            self.notes = [f"probabilities are at the temperature {temperature:.4g} of student.json"]

    def predict(self, image: ImageFile, top: int) -> Prediction:
        picture = read_image(str(image.path), max_megapixels=self.max_megapixels, channels=self.transform.channels)
        return Prediction(image.path, self.rank_classes(picture, top), {})

    def rank_classes(self, picture: Stored | Tensor, top: int | None) -> list[tuple[str, float]]:
        scores = self.student(show_picture(picture, self.transform, self.student))[0]
        return select_largest((scores.float() / self.temperature).softmax(0), self.classes, top or 1)
