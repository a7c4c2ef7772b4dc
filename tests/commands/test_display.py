"""What a person sees while a network trains."""

import io

import pytest
from rich.console import Console

from selfdistill.commands.progress import Lines, Live, LogFile, line
from selfdistill.runs.folder import Run

SCORES = {"top1": 0.9, "top5": 1.0, "nll": 0.3, "ece": 0.02, "count": 10}
TRAIN = {
    "kind": "train",
    "epoch": 2,
    "step": 7,
    "losses": {"task": 1.25, "kd": 0.5},
    "accuracy": 0.5,
    "lr": 0.1,
    "seconds_per_step": 0.02,
}
EPOCH = {"kind": "epoch", "epoch": 2, "step": 8, "split": "val", "scores": SCORES}


def test_a_line_names_every_loss_term_and_the_accuracy():
    assert line(TRAIN) == "epoch 2  step 7  task 1.25  kd 0.5  accuracy 50.0%  lr 0.1  20 ms/step"
    assert line(EPOCH) == "epoch 2  step 8  val: top-1 90.00%  top-5 100.00%  nll 0.3000  ece 0.0200"
    assert "nothing held out" in line({**EPOCH, "scores": None})


def test_a_line_of_a_segmenter_names_its_scores():
    dense = {"miou": 0.5, "pixel_accuracy": 0.75, "boundary_f": 0.25, "nll": 1.0, "ece": 0.125}
    record = {**EPOCH, "kind": "end", "scores": {**dense, "iou": [0.5, float("nan")], "count": 3}}
    scores = "mIoU 50.00%  pixels 75.00%  boundary F 25.00%  nll 1.0000  ece 0.1250"
    assert line(record) == f"epoch 2  step 8  final val: {scores}"


def test_the_log_file_names_the_iou_of_every_class(tmp_path):
    run = Run(tmp_path)
    log = LogFile(run, ["sky", "road"])
    dense = {"miou": 0.5, "pixel_accuracy": 0.75, "boundary_f": 0.25, "nll": 1.0, "ece": 0.125}
    for scores in (SCORES, None, {**dense, "iou": (0.5, float("nan")), "count": 3}):
        log.logged({**EPOCH, "scores": scores})
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
    lines = Lines(every_seconds)
    lines.shown = float("inf") if every_seconds else 0.0
    for record in (TRAIN, {**TRAIN, "step": 8}, EPOCH):
        lines.logged(record)
    shown = capsys.readouterr().out.splitlines()
    assert shown.count(line({**TRAIN, "step": 8})) == 1 and shown[-1] == line(EPOCH)
    assert (line(TRAIN) in shown) == (not every_seconds)
