"""Runs on images of more than 8 bits: resumed, scored, predicted and described as they were trained."""

import json

import pytest

from helpers.deep_images import write_scenes
from helpers.runs import stop_and_resume
from selfdistill.commands.predict import predict_images
from selfdistill.export import collect_metadata
from selfdistill.runs.folder import Run
from selfdistill.runs.student import read_complete_card


@pytest.fixture(scope="module", params=[1, 5])
def folder(request, tmp_path_factory):
    """A whole run, which one that was stopped and resumed equals bit for bit, and its images."""
    folder = tmp_path_factory.mktemp("deep")
    write_scenes(folder / "images", channels=request.param)
    changes = {"data": {"source": str(folder / "images"), "image_size": 8}, "batch_size": 4, "method": "frskd"}
    stop_and_resume(folder, changes, 2)
    return folder


@pytest.mark.slow
def test_the_range_is_stored_with_the_student_and_told_in_its_file(folder):
    card, recipe = read_complete_card(folder / "whole"), Run.open(folder / "whole").recipe()
    assert card.data.value_range is not None and card.data.value_range == recipe.data.value_range
    facts = collect_metadata(card)
    assert json.loads(facts["value_range"]) == json.loads(json.dumps(card.data.value_range))
    assert facts["input"].startswith(f"float32 (b, {card.data.channels}, h, w): (values - low) / (high - low)")


@pytest.mark.slow
def test_predictions_are_those_that_were_scored(folder):
    predicted = list(predict_images(folder / "whole", [folder / "images" / name for name in ("cold", "warm")]))
    assert len(predicted) == 16 and all(outcome.classes[0][0] in ("cold", "warm") for outcome in predicted)
    outcomes = Run.open(folder / "whole").outcomes("val")
    shares = outcomes.logits.softmax(1).max(1).values.tolist()
    said = [outcome.classes[0][1] for outcome in predicted]
    assert all(min(abs(share - other) for other in said) < 1e-4 for share in shares)
