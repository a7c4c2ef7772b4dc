"""How far runs are, by their logs."""

import os

import pytest

from helpers.runs import recipe
from selfdistill.metrics.scores import ClassificationScores
from selfdistill.report.live import estimate_seconds, read_progress
from selfdistill.runs.folder import Run
from selfdistill.runs.records import EndRecord, EpochRecord, Parameters, TrainRecord


def trained(step, pace=0.5):
    return TrainRecord(epoch=1, step=step, lr=0.1, losses={"task": 2.0, "kd": 0.5}, accuracy=0.5, seconds_per_step=pace)


def scored(epoch, step, top1):
    scores = ClassificationScores(top1=top1, top5=1.0, nll=0.3, ece=0.02, count=10)
    return EpochRecord(epoch=epoch, step=step, split="val", scores=scores)


@pytest.mark.parametrize(
    ("records", "epochs", "max_steps", "seconds"),
    [
        (([trained(5)], []), 10, None, None),  # how long an epoch is shows at its end
        (([trained(5)], []), None, 25, 10.0),
        (([trained(5), trained(10, 9.0), trained(15)], [scored(1, 10, 0.5)]), 4, None, 12.5),
        (([trained(10)], [scored(1, 10, 0.5)]), 4, 20, 5.0),
        (([], []), 4, 20, None),
        (([trained(5, float("nan"))], [scored(1, 5, 0.5)]), 4, None, None),
    ],
)
def test_the_time_left_is_the_steps_left_at_the_usual_pace(records, epochs, max_steps, seconds):
    assert estimate_seconds(*records, epochs, max_steps) == seconds


def test_a_run_is_told_by_its_last_records_and_its_best_score(tmp_path):
    run = Run.create(tmp_path / "run", recipe(tmp_path / "run", epochs=4))
    assert read_progress(run, []).state == "has not begun"
    records = [trained(10), scored(1, 10, 0.8), trained(20), scored(2, 20, 0.7)]
    for record in records:
        run.append(record)
    progress = read_progress(run, records)
    assert (progress.state, progress.epoch, progress.best) == ("going on", "2 of 4", "0.8 after epoch 1")
    assert "70.00%" in progress.score and progress.losses == "task 2  kd 0.5" and progress.left == 10
    os.utime(run.path / "metrics.jsonl", (0, 0))
    assert read_progress(run, records).state.startswith("no new line for")
    size = Parameters(student=1, training_only=0)
    end = EndRecord(split="val", scores=None, epoch=4, step=40, seconds_per_step=0.5, parameters=size)
    assert read_progress(run, [*records, end]).state == "ended" and read_progress(run, [*records, end]).left is None
