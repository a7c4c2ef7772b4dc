"""A trained run as Python sees it: its student, classes, transforms and scores, and what it says of images."""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..config.recipe import Recipe
from ..data import read_image
from ..data.datasets.given import to_picture
from ..export import export
from ..imports import lend
from ..report.elements import Element, element
from ..runs.folder import BEST, Run
from ..runs.records import EndRecord, EpochRecord
from ..runs.student import StudentCard, build_network, load_trained_weights, read_complete_card
from ..runs.trust import is_object
from ..tasks import Scores, find_task
from ..tasks.base import Predictor, TaskKind
from ..training.state import Result
from .evaluate import evaluate_run
from .objects import LentNetwork, take_settings
from .predict import list_images
from .progress import draw_sparkline


class Predicted(NamedTuple):
    """What a student says of one image."""

    classes: list[tuple[str, float]]  # largest first: probabilities, or of masks the shares of the pixels
    mask: Tensor | None = None  # of a segmenter: the class number of every pixel, (h, w)
    image: Path | None = None  # its file, if it was one

    @property
    def label(self) -> str | None:
        """The first class; None where an image shows none."""
        return self.classes[0][0] if self.classes else None


class Transforms(NamedTuple):
    """From a PIL image to what the student is shown, (c, h, w)."""

    train: Callable[[Image.Image], Tensor]  # without randomness: as the first draw of an image is augmented
    eval: Callable[[Image.Image], Tensor]


class TrainedRun:
    """A run folder: `load` and `train` give one.

    >>> run = sd.load("runs/digits")                                                    # doctest: +SKIP
    >>> run.predict("photo.png")[0].label                                               # doctest: +SKIP
    '7'
    """

    def __init__(
        self,
        path: str | Path,
        *,
        student: nn.Module | None = None,
        result: Result | None = None,
        objects: Mapping[str, Any] | None = None,
        trust: bool = False,
    ) -> None:
        self.path, self.result, self.trust = Path(path), result, trust
        self._run = Run.open(self.path)
        self._objects = dict(objects or {})
        with lend(self._objects):
            self.card: StudentCard = read_complete_card(self.path, trust=trust)
            self._task: TaskKind = find_task(self.card.task)
        self._given = student  # in place of a network that the folder rebuilds, or that it cannot
        if student is not None:
            self._objects[self.card.student.name] = LentNetwork(student, copies=False)

    @cached_property
    def student(self) -> nn.Module:
        """The plain network with the trained weights, in eval mode; on the CPU unless you move it."""
        with lend(self._objects):
            network = self._given
            if network is None or is_object(self.card.student.name):
                network = build_network(self.card)
            load_trained_weights(network, self.path, self.card)
        return network.eval()

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the scores."""
        return self.card.classes

    @property
    def recipe(self) -> Recipe:
        """Everything that decided the run, resolved."""
        return self._run.recipe(trust=True)

    @property
    def end(self) -> EndRecord | None:
        """The last record of its log: scores and costs; None where the run has not ended."""
        ends = [record for record in self._run.records() if isinstance(record, EndRecord)]
        return ends[-1] if ends else None

    @property
    def scores(self) -> dict[str, Any] | None:
        """The scores of the student on the held-out images, by name; None where nothing was held out."""
        return self.card.scores

    @property
    def test_scores(self) -> dict[str, Any] | None:
        """Those on test images, where the run had any beside its held-out ones."""
        scores = None if self.end is None else self.end.test_scores
        return None if scores is None else scores._asdict()

    @property
    def transforms(self) -> Transforms:
        """What the student was shown of an image in training, and what it is shown in evaluation."""
        return Transforms(
            self._task.train_transform(self.card.data).show, self._task.eval_transform(self.card.data).show
        )

    @cached_property
    def _predictor(self) -> Predictor:
        return self._task.predictor(self.student, self.card, self.path, None)

    def predict(self, images: Any, *, top: int | None = None) -> list[Predicted]:
        """Names the classes of images.

        Args:
            images: One image, or several: paths of files and folders, PIL images, arrays (h, w) or (h, w, c) and
                tensors (c, h, w) of uint8; or float tensors (c, h, w) or (b, c, h, w), which the student is shown as
                they are, after `transforms.eval` or a pipeline of your own.
            top: How many classes; None: the most probable one, of several labels all that the image shows.

        Returns:
            A `Predicted` for each image, in order.

        Raises:
            ValueError: that names an image which cannot be read, or is of another form.
        """
        predictor, top = self._predictor, predictor_top(self._predictor, top)
        said = []
        for path, picture in self._list_pictures(images):
            with torch.inference_mode():
                mask = predictor.label_pixels(picture) if self._task.output == "pixel" else None
                said.append(Predicted(predictor.rank_classes(picture, top), mask, path))
        return said

    def _list_pictures(self, images: Any) -> list[tuple[Path | None, Any]]:
        if isinstance(images, Tensor) and images.ndim == 4 or isinstance(images, list | tuple | set):
            return [pair for image in images for pair in self._list_pictures(image)]
        if isinstance(images, str | Path):
            paths = [file.path for file in list_images([Path(images)])]
            return [(path, read_image(str(path), max_megapixels=self.card.data.max_megapixels)) for path in paths]
        if isinstance(images, Tensor) and images.is_floating_point():
            channels = self.card.student.image_shape[0]
            if images.ndim != 3 or len(images) != channels:
                raise ValueError(f"an image is a tensor {tuple(images.shape)}; give ({channels}, height, width)")
            return [(None, images)]
        if isinstance(images, np.ndarray) and images.ndim == 4:
            return [(None, to_picture(image)) for image in images]
        return [(None, to_picture(images))]

    def evaluate(self, data: Any = None) -> Scores:
        """The scores on the run's own held-out images, or on all labeled images of `data`: a source or a Dataset."""
        taken = take_settings({"data": data} if data is not None else {})
        source = taken.values.get("data")
        source = source.get("source") if isinstance(source, dict) else source
        own = {name: value for name, value in self._objects.items() if name not in taken.objects}
        with lend({**own, **taken.objects}):
            return evaluate_run(self.path, source, trust=self.trust).scores

    def export(self, format: str, *, out: str | Path | None = None) -> Path:
        """Writes the student as a "safetensors", "onnx" or "torch-export" file, checks it, and gives its path."""
        with lend(self._objects):
            return export(self.path, format, out=out, trust=self.trust).path

    @property
    def best(self) -> "TrainedRun":
        """The student of the best epoch by the validation images; raises `ValueError` where none was kept."""
        if not (self.path / BEST / "student.json").exists():
            raise ValueError(f"{self.path} holds no best student: a run chooses one by its validation images")
        return TrainedRun(self.path / BEST, objects=self._objects, trust=self.trust)

    def __repr__(self) -> str:
        return f"<TrainedRun {self.path}: {self._describe()}>"

    def _describe(self) -> str:
        score = ""
        if self.scores:
            name = self._task.columns[0].score
            score = f", {name} {self.scores[name]:.4f}"
        return f"{self.card.method} on {self.card.student.name}, {len(self.classes)} classes{score}"

    def _repr_html_(self) -> str:
        """A short table for notebooks; the course of the main score stands beside it."""
        course = [record.scores.main for record in self._run.records() if isinstance(record, EpochRecord)]
        rows: list[tuple[str, str]] = [
            ("run", str(self.path)),
            ("method", self.card.method),
            ("student", f"{self.card.student.name}, {'x'.join(map(str, self.card.student.image_shape))}"),
            ("classes", ", ".join(self.classes[:10]) + (" ..." if len(self.classes) > 10 else "")),
            *((column.title, _format(self.scores or {}, column)) for column in self._task.columns),
            ("course", draw_sparkline(course)),
        ]
        cells: list[Element] = [
            element("tr", element("th", name), element("td", value)) for name, value in rows if value
        ]
        return str(element("table", cells))


def predictor_top(predictor: Predictor, top: int | None) -> int | None:
    return predictor.default_top if top is None else top


def _format(scores: Mapping[str, Any], column: Any) -> str:
    value = scores.get(column.score)
    return "" if value is None else format(column.scale * value, column.format)
