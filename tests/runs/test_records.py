"""Lines of metrics.jsonl are typed: what was written comes back, and what is damaged is named."""

import json
import math

import pytest

from selfdistill.config.recipe import Recipe
from selfdistill.metrics.scores import ClassificationScores, SegmentationScores
from selfdistill.runs.folder import Run
from selfdistill.runs.records import EndRecord, EpochRecord, GradientRecord, Parameters, TrainRecord, WarningRecord

SCORES = ClassificationScores(top1=0.9, top5=1.0, nll=0.3, ece=0.02, count=10)
DENSE = SegmentationScores(0.5, 0.75, 0.25, 1.0, 0.125, (0.5, math.nan), 3)
TRAIN = TrainRecord(epoch=2, step=7, lr=0.1, losses={"task": 1.25, "kd": 0.5}, accuracy=0.5, seconds_per_step=0.02)
EPOCH = EpochRecord(epoch=2, step=8, split="val", scores=SCORES)
WARNING = WarningRecord(epoch=2, step=8, text="the loss term 'kd' is exactly zero and teaches nothing")
END = EndRecord(
    split="val",
    scores=SCORES,
    epoch=2,
    step=8,
    seconds_per_step=0.02,
    peak_memory_mib=100.0,
    parameters=Parameters(student=10, training_only=3),
)


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", Recipe())


def test_records_come_back_in_order(run):
    assert run.records() == []
    measured = {"train_seconds": 3.5, "train_scores": SCORES, "test_scores": SCORES, "temperature": 1.5}
    gradients = GradientRecord(epoch=2, step=8, shares={"task": 0.75, "kd": 0.25}, cosines={"task": 1.0, "kd": -0.5})
    taught = TRAIN.model_copy(update={"self_teacher_accuracy": 0.75})
    records = [TRAIN, taught, WARNING, gradients, EPOCH, END, END.model_copy(update={"scores": None, **measured})]
    infinite = TRAIN.model_copy(update={"step": 9, "losses": {"kd": math.inf}})
    for record in (*records, infinite):
        run.append(record)
    assert run.records() == [*records, infinite]


def test_sentences_of_records():
    taught = TRAIN.model_copy(update={"self_teacher_accuracy": 0.75})
    assert "accuracy 50.0%  self-teacher 75.0%  lr 0.1" in taught.sentence() and "teacher" not in TRAIN.sentence()
    gradients = GradientRecord(epoch=2, step=8, shares={"task": 0.75, "kd": 0.25}, cosines={"kd": -0.5})
    assert gradients.sentence() == "epoch 2  step 8  gradient norms: task 75.0%  kd 25.0% (cosine -0.50)"
    tested = END.model_copy(update={"test_scores": SCORES._replace(top1=0.8)})
    assert "final val: top-1 90.00%" in tested.sentence() and "  test: top-1 80.00%" in tested.sentence()


def test_scores_of_every_task_come_back_as_their_own_type(run):
    for scores in (SCORES, DENSE):
        run.append(EPOCH.model_copy(update={"scores": scores}))
    first, second = (record.scores for record in run.records())
    assert first == SCORES and isinstance(second, SegmentationScores)
    assert second.miou == 0.5 and second.iou[0] == 0.5 and math.isnan(second.iou[1])


def test_lines_that_earlier_versions_wrote_are_read(run):
    old = {"kind": "end", "split": "val", "scores": None, "epoch": 1, "step": 5, "seconds_per_step": math.nan}
    line = json.dumps({**old, "parameters": {"student": 10, "training_only": 0}})
    (run.path / "metrics.jsonl").write_text(line + "\n")
    (record,) = run.records()
    assert (
        record.peak_memory_mib is record.train_seconds is record.test_scores is None
        and record.compile_seconds == 0
        and math.isnan(record.seconds_per_step)
    )


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"st', "it is not JSON"),
        ('{"kind": "train", "epoch": 1}', "it has no 'train.step'"),
        ('{"kind": "warning", "epoch": 1, "step": "x", "text": "a"}', "warning.step='x' should be a valid integer"),
        ('{"kind": "note", "step": 3}', "'note'"),
        ("[1]", "[1]"),
    ],
)
def test_a_damaged_line_is_named(run, line, why):
    run.append(TRAIN)
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write(f"{line}\n")
    run.append(EPOCH)
    with pytest.raises(ValueError, match=r"^line 2 of .*metrics.jsonl is damaged: .*") as caught:
        run.records()
    assert why in str(caught.value) and "\n" not in str(caught.value)


def test_a_torn_last_line_is_left_out_and_written_over(run):
    run.append(TRAIN)
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "st')
    assert run.records() == [TRAIN]
    run.append(EPOCH)
    assert run.records() == [TRAIN, EPOCH]


def test_rewind_drops_later_steps_and_the_end(run):
    records = [TRAIN.model_copy(update={"step": step}) for step in range(1, 6)]
    for record in (*records, END.model_copy(update={"step": 2})):
        run.append(record)
    run.rewind(3)
    assert run.records() == records[:3]


def test_a_sentence_names_every_loss_term_and_the_accuracy():
    assert TRAIN.sentence() == "epoch 2  step 7  task 1.25  kd 0.5  accuracy 50.0%  lr 0.1  20 ms/step"
    assert EPOCH.sentence() == "epoch 2  step 8  val: top-1 90.00%  top-5 100.00%  nll 0.3000  ece 0.0200"
    assert WARNING.sentence() == f"epoch 2  step 8  warning: {WARNING.text}"
    assert "nothing held out" in END.model_copy(update={"scores": None}).sentence()
    assert END.model_copy(update={"compile_seconds": 61.0}).sentence().endswith("ece 0.0200  compiled in 61 s")


def test_a_sentence_about_a_segmenter_names_its_scores():
    scores = "mIoU 50.00%  pixels 75.00%  boundary F 25.00%  nll 1.0000  ece 0.1250"
    assert END.model_copy(update={"scores": DENSE}).sentence() == f"epoch 2  step 8  final val: {scores}"
