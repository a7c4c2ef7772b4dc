"""What a person sees while a network trains."""

import io

import pytest
from rich.console import Console

from selfdistill.commands.progress import Lines, Live, LogFile
from selfdistill.metrics.classification import ClassificationScores
from selfdistill.metrics.segmentation import SegmentationScores
from selfdistill.runs.folder import Run
from selfdistill.runs.records import EndRecord, EpochRecord, Parameters, TrainRecord

SCORES = ClassificationScores(top1=0.9, top5=1.0, nll=0.3, ece=0.02, count=10)
DENSE = SegmentationScores(0.5, 0.75, 0.25, 1.0, 0.125, (0.5, float("nan")), 3)
TRAIN = TrainRecord(epoch=2, step=7, losses={"task": 1.25, "kd": 0.5}, accuracy=0.5, lr=0.1, seconds_per_step=0.02)
PARAMETERS = Parameters(student=10, training_only=0)
EPOCH = EpochRecord(epoch=2, step=8, split="val", scores=SCORES)


def test_the_log_file_names_the_iou_of_every_class(tmp_path):
    run = Run(tmp_path)
    log = LogFile(run, ["sky", "road"])
    for scores in (SCORES, None, DENSE):
        log.logged(EndRecord(split="val", scores=scores, epoch=2, step=8, seconds_per_step=0.1, parameters=PARAMETERS))
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert len(lines) == 4 and lines[-1].endswith(" IoU: sky 50.0%  road -")


def test_the_live_view_shows_epoch_steps_losses_and_scores():
    live = Live("frskd on net")
    live.screen.console = Console(file=io.StringIO())
    live.started(first_step=0, last_step=20, steps_per_epoch=4)
    live.stepped(7)
    live.logged(TRAIN)
    live.logged(EPOCH)
    live.ended()
    console = Console(file=io.StringIO(), width=120)
    console.print(live.view())
    shown = console.file.getvalue()
    assert "frskd on net  epoch 2" in shown and "7/20 steps" in shown
    assert "task 1.25  kd 0.5" in shown and "top-1 90.00%" in shown


@pytest.mark.parametrize("every_seconds", [0.0, 1e6])
def test_plain_lines_show_each_epoch_s_last_losses_once(capsys, every_seconds):
    lines, later = Lines(every_seconds), TRAIN.model_copy(update={"step": 8})
    lines.shown = float("inf") if every_seconds else 0.0
    for record in (TRAIN, later, EPOCH):
        lines.logged(record)
    shown = capsys.readouterr().out.splitlines()
    assert shown.count(later.sentence()) == 1 and shown[-1] == EPOCH.sentence()
    assert (TRAIN.sentence() in shown) == (not every_seconds)
