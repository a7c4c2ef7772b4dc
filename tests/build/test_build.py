"""A recipe becomes objects, the same ones each time, or is refused in one sentence."""

from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from helpers.runs import recipe, weights
from selfdistill.build import build, checks
from selfdistill.config.read import parse, read


def test_a_resolved_recipe_builds_the_same_run_again(tmp_path):
    first = build(recipe(tmp_path))
    second = build(parse(first.recipe.model_dump(mode="json")))
    assert first.recipe == second.recipe
    for (name, value), other in zip(weights(first.method).items(), weights(second.method).values(), strict=True):
        assert torch.equal(value, other), name


def test_methods_start_from_the_same_student(tmp_path):
    plain, refined = (build(recipe(tmp_path, method=name)).method.student for name in ("baseline", "frskd"))
    for name, value in plain.state_dict().items():
        assert torch.equal(value, refined.state_dict()[name]), name


def test_a_short_schedule_takes_the_method_s_short_run_settings_and_says_so(tmp_path):
    job = build(recipe(tmp_path, method="frskd"))
    assert job.method.ramp == job.recipe.method.hyperparameters["ramp"] == 1.0
    assert any("ramp=1.0" in note for note in job.notes)
    given = build(recipe(tmp_path, method={"name": "frskd", "ramp": 0}))
    assert given.method.ramp == 0 and not any("ramp" in note for note in given.notes)
    assert build(recipe(tmp_path, method="frskd", epochs=10_000)).method.ramp == 0


def test_what_nothing_can_be_learned_from_is_refused_before_training(tmp_path):
    sentence = (
        "method=dks trains networks that score images, and segmentation needs scores of pixels; for that there are"
    )
    with pytest.raises(ValueError, match=f"{sentence} at, baseline"):
        build(recipe(tmp_path, task="segmentation", data="scenes", method="dks"))
    for split in ("train", "val"):
        for number in range(2):
            for part, mode, value in (("images", "RGB", (9, 9, 9)), ("masks", "L", number)):
                place = tmp_path / "data" / part / split
                place.mkdir(parents=True, exist_ok=True)
                Image.new(mode, (32, 32), 255 if part == "masks" and split == "val" else value).save(
                    place / f"{number}.png"
                )
    with pytest.raises(ValueError, match="the val split has no labeled pixel to score: the mask of all 2 images from"):
        build(parse({"task": "segmentation", "data": str(tmp_path / "data"), "out": str(tmp_path / "run")}))


def test_mixed_labels_are_refused_by_a_method_that_needs_hard_ones(tmp_path):
    with pytest.raises(ValueError, match="mix=cutmix gives soft labels and method=frskd_sla"):
        build(recipe(tmp_path, method="frskd_sla", mix="cutmix"))


@pytest.mark.parametrize("method", ["ps_kd", "dtskd"])
def test_what_a_method_remembers_of_all_images_must_fit(monkeypatch, method, tmp_path):
    words = ["data=digits", "student=cifar:resnet8", f"method={method}", "epochs=1", f"out={tmp_path / 'run'}"]
    build(read(None, words))
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10_000))
    with pytest.raises(ValueError, match="remembers class scores of 1438 images, checkpoints of at least .* GiB"):
        build(read(None, words))
    build(read(None, words), goes_on=True)
    monkeypatch.setattr(checks, "count_free_bytes", lambda device: 10_000)
    with pytest.raises(ValueError, match="this machine has .* free; make room, set data.fraction"):
        build(read(None, words), goes_on=True)
