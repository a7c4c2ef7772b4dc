"""A run that ends where its validation images are scored no better for a while."""

import pytest
import torch

from helpers.runs import StopAt, recipe, train, untimed, weights
from selfdistill.build import build
from selfdistill.build.checks import check_machine
from selfdistill.runs.folder import Run
from selfdistill.runs.records import EndRecord
from selfdistill.runs.student import load_student, read_card
from selfdistill.training.signals import Interrupted

FIXED = {"name": "cifar:resnet8", "freeze": ["all", "-fc"]}
NO_PROGRESS = {"epochs": 9, "patience": 2, "optim": {"lr": 1e-9}, "method": "baseline", "student": FIXED}


def test_training_ends_after_so_many_scorings_without_a_better_one_and_reports_the_last(tmp_path):
    whole, run, result = train(recipe(tmp_path / "whole", **NO_PROGRESS))
    records = run.records()
    scored = [record.scores.main for record in records if record.kind == "epoch"]
    best = scored.index(max(scored))
    assert len(scored) == result.epoch == best + 3 < 9 and isinstance(records[-1], EndRecord)
    assert any("training ends after epoch" in record.text for record in records if record.kind == "warning")
    assert read_card(run.path).epoch == result.epoch and read_card(run.path / "best").epoch == best + 1
    with pytest.raises(Interrupted):
        train(recipe(tmp_path / "stopped", **NO_PROGRESS), StopAt(7))
    again, again_run, _ = train(Run.open(tmp_path / "stopped").recipe(), resume=True)
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(whole).items())
    assert untimed(run) == untimed(again_run)
    assert load_student(again_run.path).training is False


def test_it_needs_validation_images(tmp_path):
    experiment = build(recipe(tmp_path, patience=1, method="baseline"))
    check_machine(experiment)
    object.__setattr__(experiment, "split", "test")
    with pytest.raises(ValueError, match="patience=1 needs validation images"):
        check_machine(experiment)
