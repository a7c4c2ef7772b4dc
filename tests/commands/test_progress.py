"""What a person sees while a network trains."""

import io
import re

import pytest
from rich.console import Console

from helpers.runs import small_state
from selfdistill.commands.progress import PlainProgress, RichProgress, describe_cost, describe_time_left, draw_sparkline
from selfdistill.metrics.scores import ClassificationScores
from selfdistill.runs.records import EpochRecord, GradientRecord, TrainRecord, WarningRecord

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
    assert re.search(r"task +1.25 .*\n *kd +0.5 ", shown) and "top-1 90.00%" in shown
    assert "lr 0.1  20 ms/step" in shown and re.search(r"val score +0.9 ", shown)


def test_the_live_view_draws_courses_and_keeps_the_best_score():
    live = RichProgress("frskd on net")
    live.can_draw = True  # whatever this terminal can
    for epoch, (loss, top1) in enumerate([(3.0, 0.2), (2.0, 0.8), (1.0, 0.7)], 1):
        live.on_log(
            small_state(),
            TRAIN.model_copy(update={"losses": {"task": loss, "\x1b": 0.5}, "self_teacher_accuracy": 0.6}),
        )
        live.on_log(small_state(), EPOCH.model_copy(update={"epoch": epoch, "scores": SCORES._replace(top1=top1)}))
    console = Console(file=io.StringIO(), width=120)
    console.print(live.view())
    shown = console.file.getvalue()
    assert re.search(r"task +1 +█▅▁", shown) and "\x1b" not in shown and "\\x1b" in shown
    assert re.search(r"self-teacher accuracy +0.6 +▄▄▄", shown)
    assert re.search(r"val score +0.7 +▁█▇", shown) and "best so far 0.8, after epoch 2" in shown


def test_a_long_course_is_averaged_to_the_width():
    bars = draw_sparkline([float(i) for i in range(1000)])
    assert len(bars) == 32 and [*bars] == sorted(bars) and draw_sparkline([]) == ""


@pytest.mark.parametrize("every_seconds", [0.0, 1e6])
def test_plain_lines_show_each_epoch_s_last_losses_once(capsys, every_seconds):
    lines, later = PlainProgress(every_seconds), TRAIN.model_copy(update={"step": 8})
    lines.printed_at = float("inf") if every_seconds else 0.0
    gradients = GradientRecord(epoch=1, step=8, shares={"task": 1.0}, cosines={"task": 1.0})
    for record in (TRAIN, later, WARNING, gradients, EPOCH):
        lines.on_log(small_state(), record)
    out, err = capsys.readouterr()
    shown = out.splitlines()
    assert err == "warning: step 8: look\n"
    assert shown.count(later.sentence()) == 1 and shown[-1] == EPOCH.sentence()
    assert (TRAIN.sentence() in shown) == (not every_seconds) and gradients.sentence() not in shown


@pytest.mark.parametrize(
    ("seconds_per_step", "left"), [(0.001, "1 s"), (1.0, "90 s"), (2.0, "3 min"), (100.0, "2 h"), (600.0, "15 h")]
)
def test_the_time_left_has_a_unit_that_suits_it(seconds_per_step, left):
    state = small_state(last_step=100)
    state.step = 10
    sentence = describe_time_left(state, seconds_per_step)
    assert f"about {left} of training left" in sentence and "step 10 of 100" in sentence


def test_the_time_to_the_end_of_each_phase_is_told(capsys):
    lines, state = PlainProgress(), small_state(last_step=40, steps_per_epoch=20)
    state.phases = {"asleep": range(0, 15), "settling": range(15, 20), "teaching": range(20, 40)}
    told, costs = {}, []
    for state.step in range(1, 41):
        state.slowdown = 1.0 if state.step <= 15 else 1.5 if state.step <= 20 else 2.0
        lines.on_step(state)
        told[state.step], cost = capsys.readouterr()
        costs += cost.splitlines()
    prefix = "a training step takes"
    assert costs == [
        f"{prefix} 1.5 times as long as one of the student alone up to step 20",
        f"{prefix} 2.0 times as long as one of the student alone",
    ]
    assert "about 1 s to step 15, where steps change" in told.pop(10)
    assert "about 1 s of training left" in told.pop(30)
    assert not any(told.values())


def test_a_pipe_is_told_the_plan_the_cost_and_after_ten_steps_the_time_left(capsys):
    lines, state = PlainProgress(), small_state(last_step=20, steps_per_epoch=20)
    lines.on_start(state)
    assert re.search(r"20 steps to go, up to 1 epoch; parameters: [\d,]+ of the student, 0 ", capsys.readouterr().err)
    state.slowdown = 9.8
    state.method.list_cheaper_settings = lambda: ["width=1", "depth=1"]
    told = []
    for state.step in range(1, 13):
        lines.on_step(state)
        told.append(capsys.readouterr())
    assert told[0].err.startswith("a training step takes 9.8 times as long as one of the student alone; ")
    assert told[0].err.endswith("method.width=1 or method.depth=1 makes it cheaper\n")
    assert re.match(r"step 10 of 20  \d+ ms/step  about 1 s of training left\n", told[9].out)
    assert all(line == ("", "") for line in (*told[1:9], *told[10:]))


@pytest.mark.parametrize(("slowdown", "is_told", "is_advised"), [(None, 0, 0), (1.0, 0, 0), (1.7, 1, 0), (2.6, 1, 1)])
def test_only_an_expensive_method_is_advised(slowdown, is_told, is_advised):
    state = small_state()
    state.slowdown = slowdown
    state.method.list_cheaper_settings = lambda: ["width=1"]
    assert ("times" in (describe_cost(state) or "")) == is_told
    assert ("width" in (describe_cost(state) or "")) == is_advised
