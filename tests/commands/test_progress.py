"""What a person sees while a network trains."""

import io

import pytest
from rich.console import Console

from helpers.runs import small_state
from selfdistill.commands.progress import PlainProgress, RichProgress
from selfdistill.metrics.classification import ClassificationScores
from selfdistill.runs.records import EpochRecord, TrainRecord, WarningRecord

SCORES = ClassificationScores(top1=0.9, top5=1.0, nll=0.3, ece=0.02, count=10)
TRAIN = TrainRecord(epoch=2, step=7, losses={"task": 1.25, "kd": 0.5}, accuracy=0.5, lr=0.1, seconds_per_step=0.02)
WARNING = WarningRecord(epoch=2, step=8, text="look")
EPOCH = EpochRecord(epoch=2, step=8, split="val", scores=SCORES)


def test_the_live_view_shows_epoch_steps_losses_and_scores():
    live, state = RichProgress("frskd on net"), small_state(last_step=20, steps_per_epoch=4)
    live.display.console = Console(file=io.StringIO())
    live.on_start(state)
    state.step = 7
    live.on_step(state)
    live.on_log(state, TRAIN)
    live.on_log(state, EPOCH)
    live.on_log(state, WARNING)
    live.on_end(state)
    assert "warning: step 8: look" in live.display.console.file.getvalue()
    console = Console(file=io.StringIO(), width=120)
    console.print(live.view())
    shown = console.file.getvalue()
    assert "frskd on net  epoch 2" in shown and "7/20 steps" in shown
    assert "task 1.25  kd 0.5" in shown and "top-1 90.00%" in shown


@pytest.mark.parametrize("every_seconds", [0.0, 1e6])
def test_plain_lines_show_each_epoch_s_last_losses_once(capsys, every_seconds):
    lines, later = PlainProgress(every_seconds), TRAIN.model_copy(update={"step": 8})
    lines.printed_at = float("inf") if every_seconds else 0.0
    for record in (TRAIN, later, WARNING, EPOCH):
        lines.on_log(small_state(), record)
    out, err = capsys.readouterr()
    shown = out.splitlines()
    assert err == "warning: step 8: look\n"
    assert shown.count(later.sentence()) == 1 and shown[-1] == EPOCH.sentence()
    assert (TRAIN.sentence() in shown) == (not every_seconds)
