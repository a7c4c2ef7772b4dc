"""Accelerate's trackers: TensorBoard and others get the recipe, every number of the log, and a picture at the end."""

from typing import Any

import numpy as np
import torch

from ..config.part import flatten
from ..config.recipe import Recipe
from ..runs.folder import Run
from ..runs.records import EndRecord, Record
from .callbacks import Callback
from .state import TrainState

TRACKED = "selfdistill"  # the project's name in trackers; those that write files do so in a folder of this name
SIDE = 256  # pixels, at least, of a drawn matrix


class Trackers(Callback):
    """Sends the recipe, the numbers of every record, and at the end the confusion matrix of each scored split.

    The matrix goes to trackers that take images: tensorboard, wandb, swanlab, aim and clearml.
    """

    def __init__(self, accelerator: Any, recipe: Recipe, run: Run | None) -> None:
        self.accelerator, self.recipe, self.run = accelerator, recipe, run

    def on_start(self, state: TrainState) -> None:
        settings = self.recipe.flatten()
        plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in settings.items()}
        self.accelerator.init_trackers(TRACKED, config=plain)

    def on_log(self, state: TrainState, record: Record) -> None:
        values = flatten(record.model_dump())
        numbers = {name: value for name, value in values.items() if isinstance(value, int | float)}
        self.accelerator.log(numbers, step=state.step)
        if isinstance(record, EndRecord) and self.run is not None:
            for split in dict.fromkeys((record.split, "test")):
                if (outcomes := self.run.outcomes(split)) is not None:
                    self.send_image(
                        f"confusion.{split}", draw_confusion(outcomes, state.method.task.num_classes), state
                    )

    def send_image(self, name: str, image: np.ndarray, state: TrainState) -> None:
        """Gives an image (h, w, 3), uint8, to each tracker that takes one, in the form that it takes."""
        for tracker in self.accelerator.trackers:
            match tracker.name:
                case "tensorboard":
                    tracker.log_images({name: image[None]}, step=state.step, dataformats="NHWC")
                case "wandb" | "swanlab":
                    tracker.log_images({name: [image]}, step=state.step)
                case "aim" | "clearml":
                    tracker.log_images({name: image}, step=state.step)

    def on_end(self, state: TrainState) -> None:
        self.accelerator.end_training()


def draw_confusion(outcomes: Any, num_classes: int) -> np.ndarray:
    """Rows are labels, columns predictions; the darker a square, the larger its share of the label. (h, w, 3) uint8."""
    if hasattr(outcomes, "confusion"):
        counts = outcomes.confusion
    else:
        pairs = outcomes.label * num_classes + outcomes.predicted
        counts = torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)
    shares = counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
    values = (255 * (1 - shares)).round().to(torch.uint8).numpy()
    enlarged = np.kron(values, np.ones((-(-SIDE // num_classes),) * 2, dtype=np.uint8))
    return enlarged[:, :, None].repeat(3, axis=2)
