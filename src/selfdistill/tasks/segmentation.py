"""One class for each pixel."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from ..config.recipe import DataPart
from ..data import get_scoring_window, read_image
from ..data.datasets.cityscapes import open_cityscapes
from ..data.datasets.columns import MASK_READER, WantedColumns
from ..data.datasets.conversion import PixelFormat, Stored, to_8_bits
from ..data.datasets.given import open_given_masks
from ..data.datasets.label_files import find_label_map
from ..data.datasets.mask_classes import read_masks
from ..data.datasets.mask_folder import open_mask_folder
from ..data.datasets.parquet import open_hub, open_parquet
from ..data.datasets.scenes import open_scenes
from ..data.datasets.shards import open_shards
from ..data.datasets.splits import DatasetSplits
from ..data.datasets.table import open_mask_table
from ..data.datasets.voc import open_voc
from ..data.mask_writer import Color, write_mask
from ..data.pictures import add_legend, draw_comparison, draw_overlay
from ..data.task_data import Opener, Show, Size
from ..data.transforms import image_mask
from ..data.transforms.base import Transform
from ..data.transforms.finished import FinishedTransform
from ..data.transforms.image_mask import EvalMaskTransform, TrainMaskTransform
from ..metrics.sliding_window import score_map
from ..mixing import cutmix_masks
from ..runs.files import make_folders, replace_file
from ..runs.student import StudentCard
from ..task import Batch
from .base import (
    FIXED_SIZE,
    Column,
    Defaults,
    FreeAxes,
    ImageFile,
    Mixer,
    Prediction,
    Predictor,
    ReadLabel,
    TaskKind,
    select_largest,
    show_picture,
)

STATISTICS = 500  # maximum number of images for mean and std


def _open_scenes(settings: DataPart, name: str) -> DatasetSplits:
    return open_scenes()


def _open_mask_folders(settings: DataPart, folder: str) -> DatasetSplits:
    """Opens the layout of a published data set, else folders of images and masks."""
    return open_voc(folder) or open_cityscapes(folder) or open_mask_folder(folder)


def _open_table(settings: DataPart, path: str) -> DatasetSplits:
    opened = open_mask_table(path, image_column=settings.image_column, label_column=settings.label_column)
    return _add_label_map(opened, path)


def _open_parquet(settings: DataPart, path: str) -> DatasetSplits:
    return _add_label_map(open_parquet(path, WantedColumns.of(settings, MASK_READER)), path)


def _open_hub(settings: DataPart, name: str) -> DatasetSplits:
    return _add_label_map(open_hub(name, WantedColumns.of(settings, MASK_READER), download=settings.download), name)


def _open_shards(settings: DataPart, location: str) -> DatasetSplits:
    return _add_label_map(open_shards(settings, location, "mask"), location)


def _add_label_map(opened: DatasetSplits, path: str) -> DatasetSplits:
    """Adds the names of mask values from a file in the folder, or beside the file, if there is one."""
    path = os.path.expanduser(path)
    return opened._replace(label_map=find_label_map(path if os.path.isdir(path) else os.path.dirname(path)))


def _cutmix(batch: Batch, num_classes: int, alpha: float) -> Batch:
    images, target = cutmix_masks(batch.images, batch.target, alpha)
    return batch._replace(images=images, target=target)


class Segmentation(TaskKind):
    """One class for each pixel."""

    output, target = "pixel", "class"
    losses = ("cross_entropy", "focal", "bce", "dice+cross_entropy")
    defaults = Defaults(data="scenes", student="smp:Unet/resnet18", lr=0.01, batch_size=16, fine_tuning_lr=0.01)
    sources: Mapping[str, Opener] = {
        "scenes": _open_scenes,
        "object": open_given_masks,
        "folder": _open_mask_folders,
        "table": _open_table,
        "parquet": _open_parquet,
        "shards": _open_shards,
        "hf": _open_hub,
    }
    sources_in_words = "scenes, a folder of images and masks, a .csv, .tsv, .jsonl, .parquet or .tar file, or hf:NAME"
    other_labels = "has a label for every image, not for every pixel; set data=scenes or a folder of images and masks"
    idle_settings = ("separator", "draft")  # several labels of an image; crops that are resized
    mixers = {"cutmix": Mixer(_cutmix, soft=False)}
    columns = (
        Column("miou", "mIoU, %"),
        Column("boundary_f", "boundary F, %"),
        Column("nll", "NLL, nats", ".3f", scale=1.0),
        Column("ece", "ECE, %"),
    )
    class_scores = {"iou": "IoU"}
    free_axes = FreeAxes(
        {0: "batch", 2: "height", 3: "width"},
        lambda height, width: [
            *FIXED_SIZE.tried_shapes(height, width),
            (2, 93, 121),
            (1, height * 3 // 2, width * 5 // 4),
        ],
    )

    def read_labels(
        self, opened: DatasetSplits, settings: DataPart, source: str, classes: Sequence[str] | None
    ) -> DatasetSplits:
        return read_masks(opened, settings, source, classes)

    def choose_size(self, settings: DataPart, sizes: set[Size]) -> Size:
        return image_mask.choose_default_size(sizes, settings.short_side)

    def choose_augmentations(self, settings: DataPart, size: Size, *, mirrorable: bool) -> list[str]:
        return image_mask.choose_augmentation_names(settings.augment, size, mirrorable)

    def check_augmentations(self, names: Sequence[str], size: Size, pixels: PixelFormat) -> None:
        image_mask.create_steps(names, size, [0.0] * pixels.channels, pixels)

    def statistics_view(self, settings: DataPart, size: Size) -> tuple[Show, int]:
        return lambda image: image_mask.resize_for_evaluation(image, settings.short_side), STATISTICS

    def train_transform(self, settings: DataPart) -> Transform:
        return FinishedTransform(settings, masks=True) if settings.finished else TrainMaskTransform(settings)

    def eval_transform(self, settings: DataPart) -> Transform:
        return FinishedTransform(settings, masks=True) if settings.finished else EvalMaskTransform(settings)

    def metric(self, num_classes: int, ignore_index: int) -> nn.Module:
        from ..metrics.segmentation import SegmentationMetric  # torchmetrics loads scipy, transformers and more

        return SegmentationMetric(num_classes, ignore_index=ignore_index)

    def eval_batch_size(self, settings: DataPart) -> int:
        """1, because images may differ in size."""
        return 1

    def predictor(self, student: nn.Module, card: StudentCard, run: Path, out: Path | None) -> Predictor:
        if card.masks is None:
            raise ValueError("student.json is damaged: it has no 'masks', which tell a segmenter's mask values")
        return Segmenter(
            student,
            card.classes,
            self.eval_transform(card.data),
            window=get_scoring_window(card.data),
            max_megapixels=card.data.max_megapixels,
            values=card.masks.values,
            colors=card.masks.colours,
            root=out or run,
            out=out or run / "predictions",
        )

    def export_metadata(self, card: StudentCard) -> dict[str, str]:
        """The value and color of each class in masks, and the short side for resizing images, null for none."""
        if card.masks is None:
            raise ValueError("student.json is damaged: it has no 'masks', which tell a segmenter's mask values")
        return {
            "mask_values": json.dumps(card.masks.values),
            "colours": json.dumps(card.masks.colours),
            "short_side": json.dumps(card.data.short_side),
        }


class Segmenter(Predictor):
    """Names the classes that cover most of an image, with their shares, and writes a mask and pictures of it.

    OUT/STEM.png is the mask. It has the size of the image, and the values of the training masks. OUT/STEM_overlay.png
    shows the mask over the image, above a legend. For an image with a label, OUT/STEM_comparison.png shows both.
    """

    def __init__(
        self,
        student: nn.Module,
        classes: Sequence[str],
        transform: Transform,
        *,
        window: tuple[int, int] | None,
        max_megapixels: float,
        values: Sequence[int],
        colors: Sequence[Color],
        root: Path,
        out: Path,
    ) -> None:
        self.student, self.classes, self.transform = student, classes, transform
        self.window, self.values, self.colors = window, values, colors
        self.max_megapixels = max_megapixels
        self.root, self.out = root, out  # no link below `root` is followed
        self.labels: Mapping[Path, ReadLabel] = {}

    def compare_with(self, labels: Mapping[Path, ReadLabel]) -> None:
        self.labels = labels

    def list_output_files(self, image: ImageFile) -> dict[str, Path]:
        path = self.out / image.stem
        files = {"mask": path.with_name(f"{path.name}.png"), "overlay": path.with_name(f"{path.name}_overlay.png")}
        if image.path.resolve() in self.labels:
            files["comparison"] = path.with_name(f"{path.name}_comparison.png")
        return files

    def check(self, images: Sequence[ImageFile]) -> None:
        """Raises `ValueError` if a file would be written twice, or over an image."""
        read, written = {image.path.resolve() for image in images}, {}
        for image in images:
            for file in self.list_output_files(image).values():
                if file in written:
                    raise ValueError(
                        f"{written[file]} and {image.path} would both be written to {file}; give each an --out"
                    )
                if file.resolve() in read:
                    raise ValueError(f"the image {file} would be written over; choose another --out")
                written[file] = image.path

    def predict(self, image: ImageFile, top: int) -> Prediction:
        picture = read_image(str(image.path), max_megapixels=self.max_megapixels, channels=self.transform.channels)
        numbers = self.label_pixels(picture)
        return Prediction(image.path, self._rank(numbers, top), self.write(image, picture, numbers))

    def rank_classes(self, picture: Stored | Tensor, top: int | None) -> list[tuple[str, float]]:
        return self._rank(self.label_pixels(picture), top)

    def _rank(self, numbers: Int64[Tensor, "h w"], top: int | None) -> list[tuple[str, float]]:
        shares = torch.bincount(numbers.flatten(), minlength=len(self.classes)) / numbers.numel()
        return select_largest(shares, self.classes, top or 1)

    def label_pixels(self, picture: Stored | Tensor) -> Int64[Tensor, "h w"]:
        images = show_picture(picture, self.transform, self.student)
        size = tuple(picture.shape[1:]) if isinstance(picture, Tensor) else (picture.height, picture.width)
        scores = score_map(self.student, images, size, window=self.window)
        return scores[0].argmax(dim=0).cpu()

    def write(self, image: ImageFile, picture: Stored, numbers: Int64[Tensor, "h w"]) -> dict[str, Path]:
        files = self.list_output_files(image)
        make_folders(self.root, files["mask"].parent.relative_to(self.root))
        palette = dict(zip(self.values, self.colors, strict=True))
        with replace_file(files["mask"], durable=False) as temporary:
            write_mask(temporary, torch.tensor(self.values)[numbers], palette)
        shown = to_8_bits(picture, 3)
        present = [(self.classes[k], self.colors[k]) for k in numbers.unique().tolist()]
        with replace_file(files["overlay"], durable=False) as temporary:
            add_legend(draw_overlay(shown, numbers, self.colors), present).save(temporary)
        if "comparison" in files:
            label = self.labels[image.path.resolve()]()
            with replace_file(files["comparison"], durable=False) as temporary:
                draw_comparison(shown, numbers, label, names=self.classes, colors=self.colors).save(temporary)
        return files
