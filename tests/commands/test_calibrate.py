"""eval --calibrate, as a user calls it, and what uses the temperature."""

import json
import shutil

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open

from selfdistill.commands.explain import list_held_out
from selfdistill.runs.student import load_student, read_card
from selfdistill.tasks import find_task


@pytest.fixture(scope="module")
def calibrated(digits_run, tmp_path_factory):
    """A copy of the run with a temperature, and what was printed."""
    from selfdistill.commands.calibrate import calibrate_run

    copy = tmp_path_factory.mktemp("calibrated") / "run"
    shutil.copytree(digits_run, copy)
    return copy, calibrate_run(copy, None)


@pytest.mark.slow
def test_the_temperature_is_the_best_on_validation_images_by_a_grid(calibrated):
    run, result = calibrated
    card, student = read_card(run), load_student(run)
    seen = list_held_out(run, 10**6)
    images = torch.stack([find_task(card.task).eval_transform(card.data).show(image.image) for image in seen])
    with torch.no_grad():
        logits = student(images).double()
    target = torch.tensor([card.classes.index(image.label) for image in seen])
    grid = card.temperature * torch.linspace(0.9, 1.1, 21, dtype=torch.float64)
    losses = [F.cross_entropy(logits / temperature, target).item() for temperature in grid]
    assert losses.index(min(losses)) == 10
    assert result.after.nll == pytest.approx(losses[10], rel=1e-4) and result.after.nll <= result.before.nll
    assert result.after.top1 == result.before.top1


@pytest.mark.slow
def test_eval_predict_and_export_tell_and_use_it(run, calibrated, digits_run, tmp_path):
    folder, result = calibrated
    code, out, err = run("eval", folder)
    assert (
        code == 0 and f"at the temperature {result.temperature:.4g} of student.json: nll {result.after.nll:.4f}" in out
    )
    assert json.loads(run("eval", folder, "--json")[1])["at_temperature"]["nll"] == result.after.nll
    picture = tmp_path / "a.png"
    list_held_out(folder, 1)[0].image.save(picture)
    (sharp, said), (plain, silent) = (
        run("predict", path, picture, "--top", 10, "--json")[1:] for path in (folder, digits_run)
    )
    assert "note: probabilities are at the temperature" in said and "temperature" not in silent
    probabilities = [torch.tensor([*json.loads(text)["classes"].values()]) for text in (sharp, plain)]
    torch.testing.assert_close((probabilities[1].log() / result.temperature).softmax(0), probabilities[0])
    assert run("export", folder, "--out", tmp_path)[0] == 0
    with safe_open(tmp_path / "student.safetensors", "pt") as file:
        assert json.loads(file.metadata()["temperature"]) == result.temperature


@pytest.mark.slow
def test_masks_and_several_runs_are_calibrated_and_an_old_card_has_none(run, masks_run, tmp_path):
    copies = [tmp_path / name for name in "ab"]
    for copy in copies:
        shutil.copytree(masks_run, copy)
    assert read_card(copies[0]).temperature is None
    code, out, err = run("eval", *copies, "--calibrate", "--json")
    assert code == 0 and "2 images are few" in err
    results = [json.loads(line) for line in out.splitlines()]
    assert results[0]["temperature"] == results[1]["temperature"] == read_card(copies[1]).temperature
    assert results[0]["after"]["nll"] <= results[0]["before"]["nll"]
    assert "temperature" not in run("predict", copies[0], masks_run.parent / "data" / "images")[2]  # shares need none


def test_test_images_are_refused_unless_they_are_named(run, calibrated, tmp_path, monkeypatch):
    from selfdistill.commands import evaluate

    split, dataset = "test", object()
    monkeypatch.setattr(evaluate, "open_held_out", lambda settings, task: (split, dataset))
    monkeypatch.setattr(evaluate, "has_changed", lambda *arguments: False)
    assert "held out no validation images" in run("eval", calibrated[0], "--calibrate")[2]


def test_one_thing_at_a_time(run, digits_run):
    assert "call one after the other" in run("eval", digits_run, "--calibrate", "--robust")[2]
