"""A recipe becomes objects, the same ones each time, or is refused in one sentence."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from helpers.runs import recipe, weights
from selfdistill.build import build, checks
from selfdistill.config.read import parse, read
from selfdistill.modules import remembered


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


DIGITS = 1438 * 10 * 4  # bytes of class scores that ps_kd remembers of the digits; dtskd has three times that


@pytest.mark.parametrize(
    ("method", "device", "processes", "goes_on", "free", "problem"),
    [
        ("ps_kd", "cpu", "1", False, (DIGITS, 3 * DIGITS), None),
        ("ps_kd", "cpu", "1", False, (DIGITS - 1, 2 * DIGITS), "images, 5.36e-05 GiB, and this machine has"),
        ("ps_kd", "cpu", "1", False, (DIGITS, 3 * DIGITS - 1), "images, checkpoints of 0.000161 GiB, and .* has"),
        ("dtskd", "cpu", "1", False, (3 * DIGITS - 1, 6 * DIGITS), "images, 0.000161 GiB, and this machine has"),
        ("dtskd", "cpu", "1", False, (3 * DIGITS, 9 * DIGITS), None),
        ("ps_kd", "cpu", "1", True, (2 * DIGITS, DIGITS), None),
        ("ps_kd", "cpu", "1", True, (2 * DIGITS - 1, DIGITS), "images, 0.000107 GiB, and this machine has"),
        ("ps_kd", "cpu", "1", True, (2 * DIGITS, DIGITS - 1), "images, checkpoints of 5.36e-05 GiB, and .* has"),
        ("ps_kd", "cpu", "4", False, (4 * DIGITS - 1, 2 * DIGITS), "images, 0.000214 GiB, and this machine has"),
        ("ps_kd", "cuda", "4", False, (DIGITS, 3 * DIGITS, DIGITS), None),
        ("ps_kd", "cuda", "1", False, (DIGITS, 2 * DIGITS, DIGITS - 1), "images, 5.36e-05 GiB, and the memory of cuda"),
        ("ps_kd", "cuda", "1", False, (DIGITS - 1, 2 * DIGITS, DIGITS), "images, 5.36e-05 GiB, and this machine has"),
        ("ps_kd", "cuda", "4", True, (4 * DIGITS - 1, DIGITS, DIGITS), "images, 0.000214 GiB, and this machine has"),
    ],
)
def test_what_a_method_remembers_of_all_images_must_fit(
    monkeypatch, remembering, method, device, processes, goes_on, free, problem
):
    monkeypatch.setattr(checks, "choose_device", lambda recipe: device)
    monkeypatch.setattr(checks, "count_free_bytes", lambda device: free[0 if device.type == "cpu" else 2])
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free[1]))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    expected = nullcontext() if problem is None else pytest.raises(ValueError, match=f"{method} remembers.* {problem}")
    with expected:
        checks.check_memory(*remembering[method], goes_on=goes_on)


def test_a_large_table_is_on_the_disk_twice_while_it_is_written(monkeypatch, remembering):
    monkeypatch.setattr(remembered, "LARGE", 1)
    for free, expected in ((2 * DIGITS, nullcontext()), (2 * DIGITS - 1, pytest.raises(ValueError, match="checkpoin"))):
        monkeypatch.setattr(checks.shutil, "disk_usage", lambda folder, free=free: SimpleNamespace(free=free))
        with expected:
            checks.check_memory(*remembering["ps_kd"], goes_on=False)


@pytest.fixture(scope="module")
def remembering():
    """The recipe and the method of each method that remembers all images."""
    words = ["data=digits", "student=cifar:resnet8", "epochs=1"]
    experiments = [build(read(None, [*words, f"method={name}"])) for name in ("ps_kd", "dtskd")]
    return {experiment.recipe.method.name: (experiment.recipe, experiment.method) for experiment in experiments}


def test_a_run_that_could_not_remember_all_images_is_not_built(monkeypatch, tmp_path):
    monkeypatch.setattr(checks, "count_free_bytes", lambda device: 1000)
    with pytest.raises(ValueError, match="this machine has .* free; make room, set data.fraction"):
        build(recipe(tmp_path, method="ps_kd"))
