"""What a run's student says of image files: the classes of each, and a segmenter's masks."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from ..data import eval_transform, read_image, window
from ..data.datasets.image_folder import EXTENSIONS
from ..export.masks import key, overlay, write_mask
from ..metrics.sliding_window import score_map
from ..runs.student import StudentCard, load_student, read_card


class Picture(NamedTuple):
    """An image file, and its place: its path below the folder that was named, without its ending."""

    file: Path
    place: Path


class Prediction(NamedTuple):
    """The first classes of an image: of a whole image their probabilities, of its pixels their shares."""

    image: Path
    classes: list[tuple[str, float]]
    files: dict[str, Path]  # what was written of it: "mask" and "overlay", or nothing


def predictions(run: Path, images: Sequence[Path], *, top: int = 1, out: Path | None = None) -> Iterator[Prediction]:
    """The `top` classes of each image file, and of those in folders.

    Of a segmenter's, OUT/STEM.png is the mask, at the image's own size and with the values that the masks have from
    which it learned, and OUT/STEM_overlay.png shows it over the image. `out` is RUN/predictions unless given; an image
    from within a folder keeps its place below it. Before the first image is read, `ValueError` is raised where a file
    would be written twice or over an image, and for `out` with a classifier.
    """
    card = read_card(run)
    predictor = PREDICTORS[card.task](run, card, out)
    pictures = list(image_files(images))
    predictor.check(pictures)
    for picture in pictures:
        with torch.inference_mode():
            found = predictor.of(picture, top)
        yield found  # outside: what the caller does with it is none of this mode's business


def image_files(paths: Sequence[Path]) -> Iterator[Picture]:
    """The files among `paths`, and the images in its folders."""
    for path in paths:
        if not path.is_dir():
            yield Picture(path, Path(path.stem))
            continue
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in EXTENSIONS)
        if not found:
            raise ValueError(f"the folder {path} holds no images")
        yield from (Picture(file, file.relative_to(path).with_suffix("")) for file in found)


class Classifier:
    """Says which classes a whole image is probably of."""

    def __init__(self, run: Path, card: StudentCard, out: Path | None) -> None:
        if out is not None:
            raise ValueError(f"--out={out} has no effect: {run} holds a classifier, which writes no masks")
        self.classes, self.student = card.classes, load_student(run).to(device())
        self.transform = eval_transform(card.data, "classification")

    def check(self, pictures: Sequence[Picture]) -> None:
        """Nothing is written that could be in the way."""

    def of(self, picture: Picture, top: int) -> Prediction:
        images = self.transform(read_image(str(picture.file)))[None].to(device())
        return Prediction(picture.file, best(self.student(images)[0].float().softmax(0), self.classes, top), {})


class Segmenter:
    """Says of every pixel which class it is of, and writes that down."""

    def __init__(self, run: Path, card: StudentCard, out: Path | None) -> None:
        self.classes, self.student = card.classes, load_student(run).to(device())
        self.transform = eval_transform(card.data, "segmentation")
        self.window = window(card.data)
        self.key, self.out = key(card), Path(run) / "predictions" if out is None else out

    def targets(self, picture: Picture) -> dict[str, Path]:
        place = self.out / picture.place
        return {"mask": place.with_name(f"{place.name}.png"), "overlay": place.with_name(f"{place.name}_overlay.png")}

    def check(self, pictures: Sequence[Picture]) -> None:
        """Raises `ValueError` where a file would be written twice, or over an image."""
        read, written = {picture.file.resolve() for picture in pictures}, {}
        for picture in pictures:
            for target in self.targets(picture).values():
                if target in written:
                    raise ValueError(
                        f"{written[target]} and {picture.file} would both be written to {target}; give each an --out"
                    )
                if target.resolve() in read:
                    raise ValueError(f"the image {target} would be written over; choose another --out")
                written[target] = picture.file

    def of(self, picture: Picture, top: int) -> Prediction:
        image = read_image(str(picture.file))
        images = self.transform.image(image)[None].to(device())
        scores = score_map(self.student, images, (image.height, image.width), window=self.window)
        numbers = scores[0].argmax(dim=0).cpu()
        shares = torch.bincount(numbers.flatten(), minlength=len(self.classes)) / numbers.numel()
        return Prediction(picture.file, best(shares, self.classes, top), self.write(picture, image, numbers))

    def write(self, picture: Picture, image: Image.Image, numbers: Int64[Tensor, "h w"]) -> dict[str, Path]:
        targets = self.targets(picture)
        targets["mask"].parent.mkdir(parents=True, exist_ok=True)
        write_mask(targets["mask"], torch.tensor(self.key.values)[numbers], self.key.palette)
        overlay(image, numbers, self.key.colours).save(targets["overlay"])
        return targets


PREDICTORS: dict[str, type[Classifier] | type[Segmenter]] = {"classification": Classifier, "segmentation": Segmenter}


def best(values: Tensor, names: Sequence[str], top: int) -> list[tuple[str, float]]:
    """The names of the `top` largest values (k,), with these, the largest first."""
    found = values.topk(min(top, len(values)))
    return [(names[k], value) for k, value in zip(found.indices.tolist(), found.values.tolist(), strict=True)]


def device() -> str:
    """Where students are run that only predict."""
    return "cuda" if torch.cuda.is_available() else "cpu"
