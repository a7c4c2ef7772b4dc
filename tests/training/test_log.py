"""What a run warns of, and when."""

import pytest

from helpers.runs import recipe, train
from selfdistill.runs.records import WarningRecord
from selfdistill.training.gradients import GradientMeter
from selfdistill.training.meters import Meter


@pytest.mark.parametrize(("settings", "is_told"), [({}, True), ({"beta": 0}, True), ({"alpha": 0}, False)])
def test_an_own_teacher_that_knows_no_more_is_told_of_in_the_last_epoch_if_its_answers_teach(
    tmp_path, monkeypatch, settings, is_told
):
    monkeypatch.setattr(Meter, "describe_teacher", lambda meter: "it knows no more")
    monkeypatch.setattr(GradientMeter, "describe", lambda meter: [("kd idle", "it did nothing")])
    _, run, result = train(recipe(tmp_path / "run", method={"name": "frskd", "alpha": 2.0, **settings}, epochs=1))
    told = [record for record in run.records() if isinstance(record, WarningRecord)]
    assert result.epoch == 1
    assert [(record.epoch, record.step) for record in told if "knows no more" in record.text] == (
        [(1, result.step)] if is_told else []
    )
    assert [record.epoch for record in told if "did nothing" in record.text] == [1]
