"""Callbacks are told what happens, in order, and a user's own cannot harm a run."""

from dataclasses import replace

import pytest
import torch

import selfdistill as sd
from helpers.runs import recipe, small_state, train, untimed, weights
from selfdistill.build import build
from selfdistill.config.recipe import MachinePart
from selfdistill.metrics.scores import ClassificationScores, SegmentationScores
from selfdistill.runs.folder import Run
from selfdistill.runs.records import EndRecord, Parameters
from selfdistill.runs.student import load_student
from selfdistill.training.callbacks import TrainLogWriter
from selfdistill.training.log import create_writers


class Told(sd.Callback):
    """Writes down what it is told."""

    def __init__(self):
        self.events = []

    def on_start(self, state):
        self.events.append(("start", state.step, state.last_step))

    def on_step(self, state):
        self.events.append(("step", state.step))

    def on_log(self, state, record):
        self.events.append((record.kind, record.step))

    def on_epoch_end(self, state):
        self.events.append(("epoch end", state.step, state.epochs_begun, state.scores is not None))

    def on_end(self, state):
        self.events.append(("finished", state.step))


@pytest.mark.slow
def test_a_users_callback_is_told_of_everything_in_order(tmp_path):
    told = Told()
    sd.fit(build(recipe(tmp_path / "run", method="baseline", max_steps=7)), callbacks=[told])
    assert told.events == [
        ("start", 0, 7),
        *[("step", step) for step in range(1, 5)],
        *[("train", 5), ("step", 5), ("epoch", 5), ("epoch end", 5, 1, True), ("step", 6)],
        *[("train", 7), ("step", 7), ("epoch", 7), ("epoch end", 7, 2, True), ("end", 7), ("finished", 7)],
    ]


@pytest.mark.slow
def test_a_callback_finds_the_run_folder_written(tmp_path):
    class Reader(sd.Callback):
        def on_epoch_end(self, state):
            assert run.records()[-1].kind == "epoch" and run.load_checkpoint()["step"] == state.step
            seen.append(load_student(run.path))

    seen, run = [], Run(tmp_path / "run")
    train(recipe(run.path, epochs=1), Reader())
    assert len(seen) == 1


class Raises(sd.Callback):
    """Fails in one of its methods once a step is reached."""

    def __init__(self, event, step):
        self.step = step
        setattr(self, event, self.fail)

    def fail(self, state, *values):
        if state.step >= self.step:
            raise RuntimeError("a user's mistake")


@pytest.mark.parametrize(
    ("event", "step"),
    [
        ("on_step", 7),
        *(
            pytest.param(event, step, marks=pytest.mark.slow)
            for event, step in [("on_log", 5), ("on_epoch_end", 5), ("on_epoch_end", 10), ("on_end", 10)]
        ),
    ],
)
@pytest.mark.slow
def test_a_callback_that_raises_leaves_a_run_that_ends_as_if_it_had_not(tmp_path, whole, event, step):
    told, experiment = Told(), build(recipe(tmp_path / "run"))
    run = Run.create(tmp_path / "run", experiment.recipe)
    with pytest.raises(RuntimeError, match="a user's mistake"):
        sd.fit(experiment, run=run, callbacks=[told, Raises(event, step)])
    assert told.events[-1] == ("finished", step)
    assert "forward" not in vars(experiment.method)  # accelerate's wrapper is gone
    resumed = (run.path / "last.pt").exists()
    if not resumed:
        run.rewind(0)
    again = build(run.recipe())
    sd.fit(again, run=run, resume=resumed)
    assert untimed(run) == untimed(whole[1])
    assert all(torch.equal(value, weights(again.method)[name]) for name, value in weights(whole[0]).items())


@pytest.mark.slow
def test_a_fit_into_a_run_folder_needs_a_card(tmp_path):
    experiment = build(recipe(tmp_path / "run"))
    own = sd.Experiment(experiment.recipe, experiment.method, experiment.train_set)
    with pytest.raises(ValueError, match="rebuilds its student from experiment.card; give one"):
        sd.fit(own, run=Run.create(tmp_path / "run", own.recipe))
    with pytest.raises(ValueError, match="resume=True goes on from the checkpoint of a run folder"):
        sd.fit(own, resume=True)


@pytest.mark.slow
def test_own_objects_train_without_a_run_folder(tmp_path):
    experiment = build(recipe(tmp_path / "run", epochs=1))
    result = sd.fit(sd.Experiment(experiment.recipe, experiment.method, experiment.train_set))
    assert result.step == 5 and result.scores is None


def test_train_log_names_the_iou_of_every_class(tmp_path):
    log, parameters = TrainLogWriter(Run(tmp_path), ("sky", "road")), Parameters(student=10, training_only=0)
    classified = ClassificationScores(top1=0.9, top5=1.0, nll=0.3, ece=0.02, count=10)
    segmented = SegmentationScores(0.5, 0.75, 0.25, 1.0, 0.125, (0.5, float("nan")), 3)
    for scores in (classified, None, segmented):
        end = EndRecord(split="val", scores=scores, epoch=2, step=8, seconds_per_step=0.1, parameters=parameters)
        log.on_log(small_state(), end)
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert len(lines) == 4 and lines[-1].endswith(" IoU: sky 50.0%  road -")


@pytest.mark.slow
def test_trackers_do_not_write_through_a_link_in_the_run_folder(tmp_path):
    experiment = build(recipe(tmp_path / "run"))
    tracked = experiment.recipe.model_copy(update={"machine": MachinePart(track=["tensorboard"])})
    run = Run.create(tmp_path / "run", experiment.recipe)
    (tmp_path / "outside").mkdir()
    (run.path / "selfdistill").symlink_to(tmp_path / "outside")
    with pytest.raises(ValueError, match="selfdistill is a link, and nothing is written through it"):
        list(create_writers(replace(experiment, recipe=tracked), run, None))
