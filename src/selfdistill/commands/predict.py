"""predict: names the classes of image files by a run's student."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from ..data.datasets.image_folder import EXTENSIONS
from ..distributed import default_device
from ..errors import escape_controls
from ..runs.student import load_student, read_card
from ..tasks import find_task
from ..tasks.base import ImageFile, Prediction
from .console import say


def print_predictions(
    run: Path, images: Sequence[Path], *, top: int = 1, out: Path | None = None, as_json: bool, trust: bool = False
) -> None:
    """Prints the classes of each image on a line, and names the files that were written."""
    for prediction in predict_images(run, images, top=top, out=out, trust=trust):
        if as_json:
            files = {name: str(path) for name, path in prediction.files.items()}
            say(json.dumps({"image": str(prediction.image), "classes": dict(prediction.classes), **files}))
        else:
            shares = [f"{escape_controls(name)} {share:.1%}" for name, share in prediction.classes]
            say("\t".join([escape_controls(str(prediction.image)), *shares]))


def predict_images(
    run: Path, images: Sequence[Path], *, top: int = 1, out: Path | None = None, trust: bool = False
) -> Iterator[Prediction]:
    """The `top` classes of each image file, and of those in folders.

    Files such as a segmenter's masks are written below `out`, RUN/predictions unless given; an image from within a
    folder keeps its place below it. Before the first image is read, `ValueError` is raised where a file would be
    written twice or over an image, and for `out` with a task that writes none.
    """
    card = read_card(run, trust=trust)
    student = load_student(run, trust=trust).to(default_device())
    predictor = find_task(card.task).predictor(student, card, run, out)
    files = list(list_images(images))
    predictor.check(files)
    for file in files:
        with torch.inference_mode():
            prediction = predictor.predict(file, top)
        yield prediction  # outside the block, so that the caller does not run in inference mode


def list_images(paths: Sequence[Path]) -> Iterator[ImageFile]:
    """The files among `paths`, and the images in its folders."""
    for path in paths:
        if not path.is_dir():
            yield ImageFile(path, Path(path.stem))
            continue
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in EXTENSIONS)
        if not files:
            raise ValueError(f"the folder {path} holds no images")
        yield from (ImageFile(file, file.relative_to(path).with_suffix("")) for file in files)
