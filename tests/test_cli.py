"""The commands, as a user types them, on the built-in digits."""

import json
import re
import subprocess
import sys

import pytest
import torch
from PIL import Image

from selfdistill import cli
from selfdistill.run import Run, load_student

TINY = ["data.limit=80", "student=cifar:resnet8", "epochs=1", "batch_size=16", "precision=fp32"]


@pytest.fixture
def run(capsys):
    """Calls the program with words -> (exit code, standard output, standard error)."""

    def call(*words):
        capsys.readouterr()
        code, argv = 0, sys.argv
        sys.argv = ["selfdistill", *map(str, words)]
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        finally:
            sys.argv = argv
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from selfdistill.recipe import read
    from selfdistill.workflow import start_run

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
    ],
)
def test_what_a_user_can_mend_is_one_sentence_and_a_failure(run, words, sentence):
    code, _, err = run(*words)
    assert code == 1
    assert err.startswith("error: ") and sentence in err and err.count("\n") == 1


def test_resume_of_a_stopped_run_goes_on_and_refuses_other_changes(run, tmp_path):
    folder = tmp_path / "run"
    assert run("train", *TINY, f"out={folder}", "--max-steps", 2)[0] == 0
    assert Run.open(folder).load_checkpoint()["step"] == 2
    assert "cannot change" in run("train", "--resume", folder, "optim.lr=3")[2]
    code, _, err = run("train", "--resume", folder, "max_steps=4")
    assert code == 0, err
    assert Run.open(folder).load_checkpoint()["step"] == 4


def test_a_folder_that_holds_a_run_is_not_overwritten(run, trained):
    code, _, err = run("train", *TINY, f"out={trained}")
    assert code == 1 and "already holds a run" in err


def test_eval_scores_the_held_out_rows_as_training_did(run, trained):
    code, out, err = run("eval", trained, "--json")
    assert code == 0, err
    scores, last = json.loads(out), Run.open(trained).metrics()[-1]["scores"]
    assert scores["top1"] == pytest.approx(last["top1"]) and scores["nll"] == pytest.approx(last["nll"], rel=1e-4)


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


def test_export_writes_weights_that_load_strictly(run, trained, tmp_path):
    from safetensors.torch import load_file

    code, out, err = run("export", trained, "--out", tmp_path / "student.safetensors")
    assert code == 0, err
    student = load_student(trained)
    student.load_state_dict(load_file(tmp_path / "student.safetensors"), strict=True)
    assert "differ from the student's by 0" in out


def test_methods_lists_every_method_with_its_paper(run):
    code, out, _ = run("methods")
    assert code == 0
    for name in ("baseline", "frskd", "frskd_sla", "deep_supervision", "label_smoothing"):
        assert re.search(rf"\b{name}\b", out)
    assert "2103.08273" in out and "hard labels" in out


def test_taps_shows_the_stages_it_found(run):
    code, out, _ = run("taps", "timm:resnet18", "--image-size", 64)
    assert code == 0
    assert re.search(r"layer1\D+64\D+16 x 16", out) and re.search(r"layer4\D+512\D+2 x 2", out)


def test_init_writes_a_commented_recipe_that_trains(run, tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(6):
            Image.new("RGB", (16, 16), (40 * i, 20, 90)).save(tmp_path / "images" / name / f"{i}.png")
    file = tmp_path / "recipe.yaml"
    code, out, err = run("init", f"data={tmp_path / 'images'}", "student=cifar:resnet8", "--file", file)
    assert code == 0, err
    assert "# 12 images" in file.read_text() or "2 classes" in file.read_text()
    assert "# images per optimiser step" in file.read_text()
    assert "exists already" in run("init", "--file", file)[2]
    code, _, err = run("train", file, "epochs=1", "batch_size=4", f"out={tmp_path / 'run'}")
    assert code == 0, err


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


def test_compare_refuses_runs_of_another_recipe_and_names_the_setting(run, tmp_path):
    words = ["compare", *TINY, "methods=baseline", "seeds=1", f"out={tmp_path / 'all'}"]
    assert run(*words)[0] == 0
    code, _, err = run(*words, "optim.lr=0.01")
    assert code == 1 and "optim.lr is 0.1 and not 0.01; choose another out=" in err


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
        ("data.augment=test_cli:broken", "the transform test_cli:broken raised KeyError: 'oops'"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_there_is_a_folder(run, tmp_path, word, sentence):
    code, _, err = run("train", *TINY, f"out={tmp_path / 'run'}", word)
    assert code == 1 and sentence in err and not (tmp_path / "run").exists()


def broken(image):
    raise KeyError("oops")


def test_help_answers_without_loading_torch():
    code = "import sys; sys.argv = ['selfdistill', '--help']\nfrom selfdistill import cli\n"
    code += "try: cli.app()\nexcept SystemExit: pass\nprint('torch' in sys.modules, 'timm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "False False" and "compare" in done.stdout


def test_import_loads_torch_only_when_something_is_used():
    code = "import sys, selfdistill\nprint('torch' in sys.modules); selfdistill.Task; print('timm' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_threads_are_left_as_they_are():
    before = torch.get_num_threads()
    import selfdistill.train  # noqa: F401

    assert torch.get_num_threads() == before
