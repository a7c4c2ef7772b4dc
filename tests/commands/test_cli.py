"""The commands, as a user types them, on the built-in digits."""

import csv
import importlib
import json
import re
import shutil
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
from PIL import Image

from selfdistill import list_methods
from selfdistill.commands.predict import predict_images
from selfdistill.runs.folder import Run
from selfdistill.runs.records import TrainRecord
from selfdistill.runs.student import load_student

TINY = ["data.limit=80", "student=cifar:resnet8", "epochs=1", "batch_size=16", "precision=fp32"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from selfdistill.commands.train import start_run
    from selfdistill.config.read import read

    folder = tmp_path_factory.mktemp("runs") / "trained"
    start_run(read(None, [*TINY, f"out={folder}", "method=frskd"]))
    return folder


def test_train_needs_no_recipe_file_and_prints_plain_lines_where_there_is_no_terminal(run, tmp_path):
    code, out, err = run("train", *TINY, f"out={tmp_path / 'run'}", "method=frskd", "method.alpha=3")
    assert code == 0, err
    assert re.search(r"task \d.*teacher \d.*kd \d.*feature \d.*accuracy", out)
    assert re.search(r"final val: top-1 \d", out)
    assert "held out" in err and "run folder" in err
    assert Run.open(tmp_path / "run").recipe().method.hyperparameters["alpha"] == 3
    assert "top-1" in (tmp_path / "run" / "train.log").read_text()
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert environment["data"]["train"] and environment["versions"]["torch"]


def test_a_recipe_file_comes_first_and_words_override_it(run, tmp_path):
    (tmp_path / "r.yaml").write_text("data: {source: digits, limit: 64}\nmethod: baseline\nstudent: cifar:resnet8\n")
    code, _, err = run("train", tmp_path / "r.yaml", "epochs=1", "batch_size=32", f"out={tmp_path / 'run'}")
    assert code == 0, err
    recipe = Run.open(tmp_path / "run").recipe()
    assert (recipe.method.name, recipe.data.limit, recipe.epochs) == ("baseline", 64, 1)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train", "epoch=3"], "no setting is called 'epoch'; did you mean 'epochs'?"),
        (["train", "optim.learning=3"], "no setting is called 'optim.learning'"),
        (["train", "method=frsk"], "no method is called 'frsk'; did you mean 'frskd'?"),
        (["train", "method.alhpa=3"], "no hyper-parameter 'alhpa'; did you mean 'alpha'?"),
        (["train", "student=timm:resnet1"], "resnet1"),
        (["train", "data=/nowhere/at/all"], "/nowhere/at/all"),
        (["train", "no_such_recipe.yaml"], "no_such_recipe.yaml"),
        (["train", "--resume", "/nowhere"], "/nowhere"),
        (["eval", "/nowhere"], "/nowhere"),
        (["export", "/nowhere", "--format", "onxx"], "onnx"),
        (["compare", "methods=baseline,frsk"], "did you mean 'frskd'?"),
        (["compare", "seeds=three"], "seeds='three' is not a whole number"),
        (["compare", "seeds=0,-7"], "seeds=[7] takes seed 7"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence_and_a_failure(run, words, sentence):
    code, _, err = run(*words)
    assert code == 1
    assert err.startswith("error: ") and sentence in err and err.count("\n") == 1


@pytest.mark.slow
def test_resume_of_a_stopped_run_goes_on_and_refuses_other_changes(run, tmp_path):
    folder = tmp_path / "run"
    assert run("train", *TINY, f"out={folder}", "--max-steps", 2)[0] == 0
    assert Run.open(folder).load_checkpoint()["step"] == 2
    assert "cannot change" in run("train", "--resume", folder, "optim.lr=3")[2]
    code, _, err = run("train", "--resume", folder, "max_steps=4")
    assert code == 0, err
    assert Run.open(folder).load_checkpoint()["step"] == 4


@pytest.mark.slow
def test_a_run_from_before_cpus_chose_bfloat16_goes_on_in_float32_and_one_without_a_checkpoint_anew(
    run, tmp_path, monkeypatch
):
    from selfdistill.config.read import read

    monkeypatch.setattr("selfdistill.training.device.computes_bfloat16", lambda kind: True)
    words = [word for word in TINY if not word.startswith("precision")]
    begun = Run.create(tmp_path / "run", read(None, [*words, "precision=auto", "machine.device=cpu"]))
    begun.append(TrainRecord(epoch=1, step=1, lr=0.1, losses={"task": 9.0}, accuracy=0.1, seconds_per_step=0.1))
    code, _, err = run("train", "--resume", begun.path)
    assert code == 0, err
    assert begun.environment().precision == "fp32"
    assert all(record.losses["task"] != 9 for record in begun.records() if record.kind == "train")


@pytest.mark.slow
def test_a_folder_that_holds_a_run_is_not_overwritten(run, trained):
    code, _, err = run("train", *TINY, f"out={trained}")
    assert code == 1 and "already holds a run" in err


@pytest.mark.slow
def test_eval_scores_the_held_out_rows_as_training_did(run, trained):
    code, out, err = run("eval", trained, "--json")
    assert code == 0, err
    scores, last = json.loads(out), Run.open(trained).records()[-1].scores
    assert scores["top1"] == pytest.approx(last.top1) and scores["nll"] == pytest.approx(last.nll, rel=1e-4)


@pytest.mark.slow
def test_eval_of_several_runs_is_a_table_and_names_the_run_that_cannot_be_scored(run, digits_run, tmp_path):
    other = Run.create(tmp_path / "empty", Run.open(digits_run).recipe()).path
    code, out, err = run("eval", digits_run, digits_run.parent / "run/", "--json")
    assert code == 0 and len(out.splitlines()) == 1, err
    copy = shutil.copytree(digits_run, tmp_path / "copy")
    code, out, err = run("eval", digits_run, other, copy, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 1 and str(other) in err and [line["run"] for line in lines] == [str(digits_run), str(copy)]
    assert lines[0]["top1"] == lines[1]["top1"]
    code, out, err = run("eval", digits_run, copy)
    assert code == 0 and "top-1" in out and out.count(f"{100 * lines[0]['top1']:.2f}") >= 2, err


def test_eval_predict_and_export_take_the_best_student_where_there_is_one(run, trained, tmp_path):
    code, out, err = run("eval", trained, "--json", "--checkpoint", "best")
    assert code == 0, err
    scores = [record.scores for record in Run.open(trained).records() if record.kind == "epoch"]
    assert json.loads(out)["top1"] == pytest.approx(max(each.top1 for each in scores))
    assert run("export", trained, "--checkpoint", "best", "--out", tmp_path / "best.safetensors")[0] == 0
    assert "neither last nor best" in run("eval", trained, "--checkpoint", "first")[2]
    assert "go on with the run: --resume" in run("train", "--resume", trained / "best")[2]
    Run.create(tmp_path / "run", Run.open(trained).recipe())
    assert "holds no best student" in run("eval", tmp_path / "run", "--checkpoint", "best")[2]


def test_eval_scores_other_images_by_class_name(run, trained, tmp_path):
    for name in ("3", "7"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("L", (8, 8), i * 40).save(tmp_path / name / f"{i}.png")
    code, out, err = run("eval", trained, "--data", tmp_path, "--json")
    assert code == 0, err
    assert json.loads(out)["count"] == 6
    (tmp_path / "3").rename(tmp_path / "three")
    code, _, err = run("eval", trained, "--data", tmp_path)
    assert code == 1 and "three" in err


def test_predict_names_classes_with_probabilities(run, trained, tmp_path):
    Image.new("RGB", (20, 30), (200, 10, 10)).save(tmp_path / "a.png")
    code, out, err = run("predict", trained, tmp_path / "a.png", "--top", 3, "--json")
    assert code == 0, err
    (found,) = map(json.loads, out.splitlines())
    assert found["image"].endswith("a.png") and len(found["classes"]) == 3
    code, out, _ = run("predict", trained, tmp_path)
    assert code == 0 and re.search(r"a\.png\t\d \d+\.\d%", out)


def test_predict_names_a_file_that_is_no_image(run, trained, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    code, _, err = run("predict", trained, tmp_path / "bad.png")
    assert code == 1 and "bad.png" in err and err.count("\n") == 1


def test_predict_goes_on_after_a_bad_file_and_fails_at_the_end(run, trained, tmp_path):
    for name in ("a", "c"):
        Image.new("RGB", (20, 30), (200, 10, 10)).save(tmp_path / f"{name}.png")
    Image.new("RGB", (20, 30)).save(tmp_path / ".hidden.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    code, out, err = run("predict", trained, tmp_path, "--csv", tmp_path / "t.csv")
    assert code == 1 and [line.split("\t")[0][-5:] for line in out.splitlines()] == ["a.png", "c.png"]
    bad, last = err.splitlines()
    assert bad.startswith("not predicted: ") and "b.png cannot be read" in bad
    assert last == "error: 1 of 3 images could not be predicted"
    rows = list(csv.DictReader((tmp_path / "t.csv").read_text().splitlines()))
    assert [row["image"][-5:] for row in rows] == ["a.png", "b.png", "c.png"]
    assert [bool(row["error"]) for row in rows] == [False, True, False] and 0 < float(rows[0]["share"]) <= 1
    assert rows[0]["class"] in "0123456789"
    code, out, _ = run("predict", trained, tmp_path, "--json", "--top", 2, "--csv", tmp_path / "t.csv")
    assert code == 1 and ["error" in json.loads(line) for line in out.splitlines()] == [False, True, False]
    assert "class_1,share_1,class_2,share_2" in (tmp_path / "t.csv").read_text().splitlines()[0]


def test_predict_writes_its_table_over_no_other_file(run, trained, tmp_path):
    Image.new("RGB", (20, 30)).save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("image,label\na.png,3\n")
    for file in ("labels.csv", "a.png", ".", "gone/t.csv"):
        before = (tmp_path / "labels.csv").read_bytes(), (tmp_path / "a.png").read_bytes()
        code, out, err = run("predict", trained, tmp_path / "a.png", "--csv", tmp_path / file)
        assert code == 1 and not out and "--csv" in err and err.count("\n") == 1
        assert before == ((tmp_path / "labels.csv").read_bytes(), (tmp_path / "a.png").read_bytes())


def test_a_classifier_writes_no_masks(run, trained, tmp_path):
    code, _, err = run("predict", trained, tmp_path, "--out", tmp_path)
    assert code == 1 and "--out" in err and "classifier" in err
    code, _, err = run("predict", trained, tmp_path, "--compare", "digits")
    assert code == 1 and "--compare has no effect" in err


class Pixelwise(torch.nn.Module):
    """A segmenter that looks at single pixels."""

    def __init__(self, num_classes):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, num_classes, 1)

    def forward(self, images):
        return self.conv(images)


class Bound(Pixelwise):
    """The same for images of 16x16 alone."""

    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.places = torch.nn.Parameter(torch.zeros(num_classes, 16, 16))

    def forward(self, images):
        return super().forward(images) + self.places


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """Ten images of 18x24, dark at the left and light at the right, with masks that store 0 and 2, and 1 for void."""
    folder = tmp_path_factory.mktemp("street")
    (folder / "palette.csv").write_text("name,r,g,b\nroad,10,20,30\nvoid,0,0,0\nsky,200,210,255\n")
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for i in range(10):
        edge = 6 + i
        pixels, mask = np.full((18, 24, 3), 30 + i, dtype=np.uint8), np.zeros((18, 24), dtype=np.uint8)
        pixels[:, edge:], mask[:, edge:], mask[:2] = 220 - i, 2, 1
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{i}.png")
    return folder


DENSE = ["task=segmentation", "method=baseline", "data.image_size=16", "batch_size=2", "precision=fp32", "optim.lr=0.5"]


@pytest.fixture(scope="module")
def segmenter(street, tmp_path_factory):
    from selfdistill.commands.train import start_run
    from selfdistill.config.read import read

    folder = tmp_path_factory.mktemp("runs") / "segmenter"
    start_run(read(None, [*DENSE, f"data={street}", f"student={__name__}:Pixelwise", "epochs=3", f"out={folder}"]))
    return folder


@pytest.mark.slow
def test_eval_of_a_segmenter_tells_the_iou_of_every_class(run, segmenter, street):
    code, out, err = run("eval", segmenter)
    assert code == 0, err
    assert re.search(r"mIoU \d.*\(2 images\)\nroad\tIoU \d+\.\d+%\nsky\tIoU", out)
    numbers, last = json.loads(run("eval", segmenter, "--json")[1]), Run.open(segmenter).records()[-1].scores
    assert list(numbers["iou"].values()) == pytest.approx(last.iou) and list(numbers["iou"]) == ["road", "sky"]
    assert numbers["miou"] == pytest.approx(last.miou) and numbers["miou"] > 0.9
    assert json.loads(run("eval", segmenter, "--data", street, "--json")[1])["count"] == 10


def test_a_class_that_is_nowhere_has_no_iou(run, segmenter, tmp_path):
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    Image.new("RGB", (24, 18), (35, 35, 35)).save(tmp_path / "images/a.png")
    Image.new("L", (24, 18), 0).save(tmp_path / "masks/a.png")
    code, out, err = run("eval", segmenter, "--data", tmp_path, "--json")
    assert code == 0, err
    found = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert found["iou"] == {"road": 1.0, "sky": None} and found["boundary_f"] is None
    assert "sky\tIoU -" in run("eval", segmenter, "--data", tmp_path)[1]


def test_predict_of_a_segmenter_writes_masks_that_its_data_could_hold(run, segmenter, street, tmp_path):
    code, out, err = run("predict", segmenter, street / "images", "--out", tmp_path, "--top", 2)
    assert code == 0, err
    assert re.search(r"7\.png\t(road|sky) \d+\.\d%\t(road|sky) \d+\.\d%\n", out)
    (tmp_path / "masks").mkdir()
    for path in tmp_path.glob("?.png"):
        assert path.with_name(f"{path.stem}_overlay.png").exists()
        with Image.open(path) as mask, Image.open(street / "masks" / path.name) as true:
            assert mask.size == (24, 18) and mask.getpalette()[:9] == [10, 20, 30, 0, 0, 0, 200, 210, 255]
            agree = np.asarray(mask)[2:] == np.asarray(true)[2:]
        assert agree.mean() > 0.9
        path.rename(tmp_path / "masks" / path.name)
    shutil.copytree(street / "images", tmp_path / "images")
    shutil.copy(street / "palette.csv", tmp_path)
    assert json.loads(run("eval", segmenter, "--data", tmp_path, "--json")[1])["miou"] == 1


def test_predict_reads_images_of_every_kind_at_their_own_size(run, segmenter, tmp_path):
    dark = Image.new("RGB", (30, 20), (30, 30, 30))
    dark.convert("RGBA").save(tmp_path / "alpha.png")
    dark.convert("L").save(tmp_path / "grey.png")
    Image.new("I;16", (30, 20), 30 * 257).save(tmp_path / "deep.png")
    exif = dark.getexif()
    exif[0x0112] = 6  # a quarter turn
    dark.save(tmp_path / "turned.jpg", exif=exif)
    code, out, err = run("predict", segmenter, tmp_path, "--json")
    assert code == 0, err
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["classes"] for line in lines] == [{"road": 1.0}] * 4
    sizes = {}
    for line in lines:
        assert line["mask"].startswith(str(segmenter / "predictions"))
        with Image.open(line["mask"]) as mask, Image.open(line["overlay"]) as overlay:
            assert overlay.width >= mask.width and overlay.height > mask.height  # a legend is below it
            sizes[line["image"].rpartition("/")[2]] = mask.size
    assert sizes.pop("turned.jpg") == (20, 30) and set(sizes.values()) == {(30, 20)}


def test_predict_writes_no_file_twice_and_none_over_an_image(run, segmenter, tmp_path):
    for name in ("a/x.png", "b/x.png"):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    code, _, err = run("predict", segmenter, tmp_path / "a/x.png", tmp_path / "b/x.png", "--out", tmp_path / "out")
    assert code == 1 and "a/x.png and " in err and "would both be written" in err and not (tmp_path / "out").exists()
    assert run("predict", segmenter, tmp_path, "--out", tmp_path / "out")[0] == 0
    assert (tmp_path / "out/a/x.png").exists() and (tmp_path / "out/b/x.png").exists()
    code, _, err = run("predict", segmenter, tmp_path / "a", "--out", tmp_path / "a")
    assert code == 1 and "x.png would be written over" in err


@pytest.mark.slow
def test_predict_shows_labels_and_errors_beside_the_masks_and_says_where(run, segmenter, street, tmp_path):
    Image.new("RGB", (24, 18), (35, 35, 35)).save(tmp_path / "new.png")
    words = ["predict", segmenter, street / "images", tmp_path / "new.png", "--out", tmp_path / "out"]
    code, _, err = run(*words, "--compare", street)
    assert code == 0 and f"masks, overlays and comparisons of 11 images are in {tmp_path / 'out'}" in err
    assert f"note: 1 image of these has no label in {street}" in err
    assert len([*(tmp_path / "out").glob("*_comparison.png")]) == 10
    with Image.open(tmp_path / "out" / "0_comparison.png") as picture:
        assert picture.width > 4 * 24
    code, _, err = run(*words, "--compare", "scenes")
    assert code == 1 and err.count("\n") == 1


def test_predictions_are_not_written_through_links(run, segmenter, street, tmp_path):
    folder, outside = tmp_path / "run", tmp_path / "outside"
    shutil.copytree(segmenter, folder, ignore=shutil.ignore_patterns("predictions"))
    outside.mkdir()
    image = next((street / "images").rglob("*.*"))
    (folder / "predictions").symlink_to(outside)
    code, _, err = run("predict", folder, image)
    assert code == 1 and "predictions is a link, and nothing is written through it" in err
    (folder / "predictions").unlink()
    (folder / "predictions").mkdir()
    (folder / "predictions" / f"{image.stem}.png").symlink_to(outside / "made.png")
    assert run("predict", folder, image)[0] == 0 and list(outside.iterdir()) == []


def test_between_two_predictions_gradients_are_as_the_caller_has_them(segmenter, street, tmp_path):
    for _ in predict_images(segmenter, [street / "images"], out=tmp_path):
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


def test_a_network_that_cannot_take_whole_images_is_refused_before_it_is_trained(run, street, tmp_path):
    words = [*DENSE, f"data={street}", f"student={__name__}:Bound", "epochs=1", f"out={tmp_path / 'run'}"]
    code, _, err = run("train", *words)
    assert code == 1 and f"{__name__}:Bound cannot score images of 18x24" in err and "data.window=true" in err
    assert not (tmp_path / "run").exists() and err.count("\n") == 1
    code, _, err = run("train", *words, "data.window=true")
    assert code == 0, err
    code, out, _ = run("predict", tmp_path / "run", street / "images/0.png")
    assert code == 0 and (tmp_path / "run/predictions/0.png").exists()


def test_init_counts_the_images_and_classes_of_masks(run, street, tmp_path):
    code, _, err = run("init", "task=segmentation", f"data={street}", "--file", tmp_path / "r.yaml")
    assert code == 0, err
    assert "2 classes; images: 8 train, 2 val" in (tmp_path / "r.yaml").read_text()


@pytest.mark.parametrize("out", [".", "student.safetensors", "best"])
def test_export_does_not_replace_the_student_of_a_run(run, trained, out):
    file = trained / ("best" if out == "best" else ".") / "student.safetensors"
    before = file.read_bytes()
    code, _, err = run("export", trained, "--out", trained / out)
    assert code == 1 and "is the student of a run itself" in err and file.read_bytes() == before


def test_export_writes_weights_that_load_strictly(run, trained, tmp_path):
    from safetensors.torch import load_file

    code, out, err = run("export", trained, "--out", tmp_path / "student.safetensors")
    assert code == 0, err
    student = load_student(trained)
    student.load_state_dict(load_file(tmp_path / "student.safetensors"), strict=True)
    assert "differ from the student's by 0" in out


def test_methods_are_listed_by_what_teaches_with_price_teacher_and_tasks(run):
    code, out, _ = run("methods")
    assert code == 0 and "…" not in out and "method=auto takes what did best" in out
    rows = {line.split()[0]: " ".join(line.split()) for line in out.splitlines() if line.strip()}
    assert set(list_methods()) <= rows.keys()
    assert re.fullmatch(r"frskd \d\.\d\dx none all CVPR 2021", rows["frskd"])
    assert re.fullmatch(r"sskd \d\.\d\dx sskd_teacher classification ECCV 2020", rows["sskd"])
    assert "deep maps or scores teach its shallow ones\nBegin with tfd" in out
    facts = {line["method"]: line for line in map(json.loads, run("methods", "--json")[1].splitlines())}
    assert facts.keys() == set(list_methods())
    assert facts["dlb"]["needs"] == ["1 more augmented view of each image", "hard labels (mix: none)"]
    assert facts["cs_kd"]["tasks"] == ["classification"] and facts["kd"]["teacher"] == "a trained network"
    assert json.loads(run("methods", "kd", "--json")[1]) == facts["kd"]


@pytest.mark.slow
def test_taps_are_of_the_task_that_a_network_is_for(run):
    code, out, err = run("taps", "smp:Unet/resnet18", "--image-size", 64)
    assert code == 0, err
    assert re.search(r"layer4\D+512\D+2 x 2", out)
    code, _, err = run("taps", "timm:resnet18", "--task", "segmentation")
    assert code == 1 and "scores whole images, and the task needs scores of pixels" in err
    code, _, err = run("taps", "timm:resnet18", "--task", "segmentaton")
    assert code == 1 and "did you mean 'segmentation'" in err


def test_taps_shows_the_stages_it_found(run):
    code, out, _ = run("taps", "timm:resnet18", "--image-size", 64)
    assert code == 0
    assert re.search(r"layer1\D+64\D+16 x 16", out) and re.search(r"layer4\D+512\D+2 x 2", out)


@pytest.mark.slow
def test_init_writes_a_commented_recipe_that_trains(run, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (16, 16), (40 * i, 20, 90)).save(tmp_path / "images" / name / f"{i}.png")
    file = tmp_path / "recipe.yaml"
    code, out, err = run("init", f"data={tmp_path / 'images'}", "student=cifar:resnet8", "--file", file)
    assert code == 0, err
    assert "# 12 images" in file.read_text() or "2 classes" in file.read_text()
    assert "# images per optimizer step" in file.read_text()
    assert "exists already" in run("init", "--file", file)[2]
    missing = tmp_path / "no" / "r.yaml"
    assert f"there is no folder {missing.parent}; make it, or choose another" in run("init", "--file", missing)[2]
    code, _, err = run("train", file, "epochs=1", "batch_size=4", f"out={tmp_path / 'run'}")
    assert code == 0, err


@pytest.mark.slow
def test_compare_trains_every_arm_with_every_seed_and_prints_one_table(run, tmp_path):
    words = ["compare", *TINY, "methods=baseline,frskd,frskd+beta=0", "seeds=2", f"out={tmp_path / 'all'}"]
    code, out, err = run(*words)
    assert code == 0, err
    for arm in ("baseline", "frskd", "frskd+beta=0"):
        assert {f"{arm}-s0", f"{arm}-s1"} <= {path.name for path in (tmp_path / "all").iterdir()}
    assert out.count("frskd+beta=0") >= 1 and "baseline" in out
    rows = json.loads((tmp_path / "all" / "compare.json").read_text())
    assert "frskd+beta=0" in json.dumps(rows)
    before = (tmp_path / "all" / "baseline-s0" / "metrics.jsonl").read_bytes()
    code, _, err = run(*words)
    assert code == 0 and "baseline-s0 is finished" in err
    assert (tmp_path / "all" / "baseline-s0" / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_compare_refuses_runs_of_another_recipe_and_names_the_setting(run, tmp_path):
    words = ["compare", *TINY, "methods=baseline", "seeds=1", f"out={tmp_path / 'all'}"]
    assert run(*words)[0] == 0
    code, _, err = run(*words, "optim.lr=0.01")
    assert code == 1 and "optim.lr is 0.1 and not 0.01; set optim.lr=0.1 or choose another out=" in err


def test_compare_builds_every_arm_before_it_trains_the_first(run, tmp_path):
    words = [*TINY, "mix=mixup", f"out={tmp_path / 'all'}"]
    code, _, err = run("compare", *words, "methods=baseline,frskd_sla", "seeds=1")
    assert code == 1 and "needs hard ones" in err and not (tmp_path / "all").exists()
    code, _, err = run("compare", *words, "methods=frskd+bet=0")
    assert code == 1 and "did you mean 'beta'" in err


@pytest.mark.parametrize("word", ["methods=baseline,baseline", "seeds=0", "seeds=1,1", "method=frskd", "seed=4"])
def test_compare_refuses_words_that_say_nothing(run, word):
    assert run("compare", word)[0] == 1


def test_a_finished_run_is_left_alone_by_resume(run, trained):
    before = {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()}
    code, _, err = run("train", "--resume", trained)
    assert code == 0 and "is finished" in err and "top-1" in err
    assert before == {path.name: path.read_bytes() for path in trained.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("optim.name=sdg", "did you mean 'sgd'"),
        ("machine.track=tensorbord", "did you mean 'tensorboard'"),
        (f"data.augment={__name__}:broken", f"the transform {__name__}:broken raised KeyError: 'oops'"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_there_is_a_folder(run, tmp_path, word, sentence):
    code, _, err = run("train", *TINY, f"out={tmp_path / 'run'}", word)
    assert code == 1 and sentence in err and not (tmp_path / "run").exists()


@pytest.mark.parametrize(("cache", "module"), [("device", "cached"), ("memory", "images")])
def test_images_for_which_there_is_no_room_are_refused_before_there_is_a_folder(
    run, tmp_path, cache, module, monkeypatch
):
    monkeypatch.setattr(
        importlib.import_module(f"selfdistill.data.cache.{module}"), "count_free_bytes", lambda device: 0.0
    )
    code, _, err = run("train", *TINY, f"out={tmp_path / 'run'}", f"machine.cache={cache}")
    assert code == 1 and f"machine.cache={cache} would keep decoded images" in err and not (tmp_path / "run").exists()


def broken(image):
    raise KeyError("oops")


def test_help_answers_without_loading_torch():
    code = "import sys; sys.argv = ['selfdistill', '--help']\nfrom selfdistill import cli\n"
    code += "try: cli.app()\nexcept SystemExit: pass\nprint('torch' in sys.modules, 'timm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "False False" and "compare" in done.stdout


@pytest.mark.slow
def test_import_loads_torch_only_when_something_is_used():
    code = "import sys, selfdistill\nprint('torch' in sys.modules); selfdistill.Task; print('timm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_threads_are_left_as_they_are():
    before = torch.get_num_threads()
    import selfdistill.training.loop  # noqa: F401

    assert torch.get_num_threads() == before


@pytest.mark.slow
def test_compare_builds_each_run_once_opens_the_data_once_and_keeps_no_run_after_it(run, tmp_path, monkeypatch):
    from selfdistill.commands import arms, study
    from selfdistill.data import prepare

    builds, opened, alive = [], [], []
    build, open_splits, train = arms.build, prepare.open_splits, study.train_new_run

    def count_build(recipe, *args, **options):
        experiment = build(recipe, *args, **options)
        builds.append(weakref.ref(experiment))
        return experiment

    def train_and_look(experiment, **options):
        alive.append(sum(reference() is not None for reference in builds))
        return train(experiment, **options)

    monkeypatch.setattr(arms, "build", count_build)
    monkeypatch.setattr(prepare, "open_splits", lambda *args: opened.append(args) or open_splits(*args))
    monkeypatch.setattr(study, "train_new_run", train_and_look)
    code, _, err = run("compare", *TINY, "methods=baseline,deep_supervision", "seeds=3", f"out={tmp_path / 'all'}")
    assert code == 0, err
    assert len(builds) == 6 and len(opened) == 2  # once to see that there are no test images
    assert alive[0] == 2 and max(alive[1:]) <= 1  # both arms, which were checked, then the run that is trained at most
