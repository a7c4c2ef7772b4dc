"""What trackers are sent."""

import numpy as np
import pytest
import torch

from helpers.runs import recipe, small_state
from selfdistill.metrics.outcomes import ClassOutcomes, PixelOutcomes
from selfdistill.runs.folder import Run
from selfdistill.runs.records import EndRecord, Parameters, TrainRecord
from selfdistill.training.trackers import Trackers, draw_confusion

LABEL, PREDICTED = torch.tensor([0, 0, 1, 4]), torch.tensor([0, 1, 1, 4])
OUTCOMES = ClassOutcomes(LABEL, PREDICTED, torch.ones(4), torch.zeros(4), None)
END = EndRecord(
    split="val", scores=None, epoch=1, step=3, seconds_per_step=0.1, parameters=Parameters(student=5, training_only=0)
)


class FakeTracker:
    def __init__(self, name):
        self.name, self.images = name, []

    def log_images(self, values, step, **how):
        self.images.append((values, step, how))


class FakeAccelerator:
    def __init__(self, *names):
        self.trackers, self.logged, self.ended = [FakeTracker(name) for name in names], [], False

    def init_trackers(self, project, config):
        self.project, self.config = project, config

    def log(self, values, step):
        self.logged.append((values, step))

    def end_training(self):
        self.ended = True


def test_trackers_get_the_recipe_the_numbers_and_a_picture_in_their_own_form(tmp_path):
    run = Run.create(tmp_path / "run", recipe(tmp_path / "run"))
    run.save_outcomes("val", OUTCOMES)
    names = ("tensorboard", "wandb", "aim", "mlflow")
    accelerator, state = FakeAccelerator(*names), small_state()
    trackers = Trackers(accelerator, recipe(tmp_path / "run"), run)
    trackers.on_start(state)
    assert accelerator.config["optim.lr"] == 0.05 and accelerator.config["data.val"] == "None"
    state.step = 3
    trackers.on_log(state, TrainRecord(epoch=1, step=3, lr=0.1, losses={"kd": 2.0}, accuracy=0.5, seconds_per_step=1.0))
    assert accelerator.logged[0][0]["losses.kd"] == 2 and accelerator.logged[0][1] == 3
    trackers.on_log(state, END)
    sent = {tracker.name: tracker.images for tracker in accelerator.trackers}
    (board,), (wandb,), (aim,) = (sent[name] for name in names[:3])
    assert board[0]["confusion.val"].shape[0] == 1 and board[2] == {"dataformats": "NHWC"} and not sent["mlflow"]
    assert np.array_equal(wandb[0]["confusion.val"][0], aim[0]["confusion.val"]) and wandb[1] == 3
    trackers.on_end(state)
    assert accelerator.ended


def test_without_a_run_folder_or_outcomes_there_is_no_picture(tmp_path):
    accelerator = FakeAccelerator("tensorboard")
    Trackers(accelerator, recipe(tmp_path), None).on_log(small_state(), END)
    run = Run.create(tmp_path / "run", recipe(tmp_path / "run"))
    Trackers(accelerator, recipe(tmp_path), run).on_log(small_state(), END)
    assert not accelerator.trackers[0].images and len(accelerator.logged) == 2


def test_the_picture_is_dark_where_a_label_is_predicted():
    pixels = torch.zeros(5, 5, dtype=torch.int64)
    for label, predicted in zip(LABEL, PREDICTED, strict=True):
        pixels[label, predicted] += 1
    columns = {name: None for name in PixelOutcomes._fields} | {"confusion": pixels}
    images = [draw_confusion(outcomes, 5) for outcomes in (OUTCOMES, PixelOutcomes(**columns))]
    assert np.array_equal(*images) and images[0].shape == (260, 260, 3)
    squares = images[0][::52, ::52, 0]
    expected = np.full((5, 5), 255)
    expected[0, :2], expected[1, 1], expected[4, 4] = 128, 0, 0
    assert squares == pytest.approx(expected, abs=1)
