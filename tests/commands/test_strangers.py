"""Run folders from somebody else, as every command gets them: their code is not run, the network is not reached."""

import json
import pickle
import shutil
import socket
import sys
from pathlib import Path

import pytest
from PIL import Image

from selfdistill.config.files import dump
from selfdistill.report.comparison import compare_runs
from selfdistill.runs.folder import Run
from selfdistill.runs.trust import sign_text

TINY = ["data.limit=40", "student=cifar:resnet8", "epochs=1", "batch_size=16", "precision=fp32", "method=baseline"]
CODE = """
import pathlib
from selfdistill.methods.baseline import Baseline as Plain
from selfdistill.models import build_student
from selfdistill.tasks.classification import Classification as Kind

pathlib.Path(__file__).with_name("ran").touch()


class Method(Plain): ...


class Task(Kind): ...


def net(num_classes, image_shape, **options):
    return build_student("cifar:resnet8", num_classes=num_classes, image_shape=image_shape)


def augment(image):
    return image
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    from selfdistill.commands.train import start_run
    from selfdistill.config.read import read

    folder = tmp_path_factory.mktemp("runs") / "trained"
    start_run(read(None, [*TINY, f"out={folder}"]))
    return folder


@pytest.fixture
def reached(monkeypatch):
    """What was asked of the network; asking raises."""
    asked = []

    def refuse(*words, **_):
        asked.append(words)
        raise OSError("the network was asked")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return asked


@pytest.fixture
def stranger(trained, tmp_path, monkeypatch, reached):
    """A copy of a run from another machine, beside a module `evil`; `edit` changes its card and its recipe."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "evil.py").write_text(CODE)
    shutil.copytree(trained, tmp_path / "strange")
    Image.new("L", (8, 8)).save(tmp_path / "image.png")
    yield Run.open(tmp_path / "strange")
    sys.modules.pop("evil", None)


def edit_card(run, **changes):
    path = run.path / "student.json"
    values = json.loads(path.read_text()) | changes
    del values["checksum"]
    path.write_text(json.dumps(values))


def edit_recipe(run, old, new):
    path = run.path / "recipe.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def finish_never(run):
    """As if the run had been stopped before its last step."""
    path = run.path / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if '"kind": "end"' not in line))


ON_CARD = {
    "eval": ["eval", "strange"],
    "predict": ["predict", "strange", "image.png"],
    "export": ["export", "strange"],
    "explain": ["explain", "strange", "image.png"],
    "transfer": ["transfer", "strange", "data=digits"],
    "robust": ["eval", "strange", "--robust"],
    "calibrate": ["eval", "strange", "--calibrate"],
    "teacher": ["train", *TINY, "method=kd", "method.teacher=strange", "out=new"],
    "start": ["train", *TINY, "student.start=strange", "out=new"],
}
CARDS = {
    "student": lambda card: {"student": {**card["student"], "name": "evil:net"}},
    "hub": lambda card: {"student": {**card["student"], "name": "torch.hub:load", "options": {"repo_or_dir": "a/b"}}},
    "configuration": lambda card: {"student": {**card["student"], "name": "hf:evil", "options": {"auto_map": "evil"}}},
    "task": lambda card: {"task": "evil:Task"},
}


@pytest.mark.parametrize("named", CARDS)
@pytest.mark.parametrize("command", ON_CARD)
def test_a_strangers_card_runs_no_code(run, stranger, reached, tmp_path, command, named):
    changes = CARDS[named](json.loads((stranger.path / "student.json").read_text()))
    edit_card(stranger, **changes)
    code, out, err = run(*ON_CARD[command])
    name = {"hub": "torch.hub:load", "configuration": "student=hf:evil"}.get(named, "evil:")
    assert code == 1 and "strange is not signed by this machine and would import and run" in err and name in err
    assert "--trust" in err and err.count("\n") == 1
    assert not (tmp_path / "ran").exists() and not (tmp_path / "new").exists() and not reached


def test_a_method_that_a_strangers_card_names_is_not_imported_to_explain(run, stranger, tmp_path):
    edit_card(stranger, method="evil:Method")
    code, _, err = run("explain", "strange", "image.png")
    assert code == 1 and "would import and run method=evil:Method" in err and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("command", ["predict", "start"])
def test_with_trust_a_strangers_code_runs(run, stranger, tmp_path, command):
    card = json.loads((stranger.path / "student.json").read_text())
    edit_card(stranger, student={**card["student"], "name": "evil:net"})
    words = [word if word != "student=cifar:resnet8" else "student=evil:net" for word in ON_CARD[command]]
    code, _, err = run(*words, "--trust")
    assert code == 0, err
    assert (tmp_path / "ran").exists()


RECIPES = {
    "method": ("name: baseline", "name: evil:Method"),
    "student": ("name: cifar:resnet8", "name: evil:net"),
    "task": ("kind: classification", "kind: evil:Task"),
    "loss": ("loss: null", "loss: evil:augment"),
    "sampler": ("sampler: shuffle", "sampler: evil:augment"),
    "opener": ("opener: null", "opener: evil:augment"),
    "configuration": ("name: cifar:resnet8", "name: hf:evil:x"),
    "augment": ("- crop", "- evil:augment"),
}


@pytest.mark.parametrize("named", RECIPES)
def test_a_strangers_recipe_runs_no_code_when_the_run_goes_on(run, stranger, reached, tmp_path, named):
    edit_recipe(stranger, *RECIPES[named])
    finish_never(stranger)
    code, _, err = run("train", "--resume", "strange")
    assert code == 1 and "would import and run" in err and "evil:" in err
    assert not (tmp_path / "ran").exists() and not reached


def test_a_strangers_task_is_not_imported_to_compare_scores(stranger, tmp_path):
    edit_recipe(stranger, *RECIPES["task"])
    with pytest.raises(ValueError, match="would import and run task=evil:Task"):
        compare_runs([stranger.path])
    assert not (tmp_path / "ran").exists()
    assert compare_runs([stranger.path], trust=True).rows


@pytest.mark.slow
@pytest.mark.parametrize("named", sorted({*RECIPES} - {"task"}))
def test_a_report_of_a_strangers_run_imports_nothing(run, stranger, reached, tmp_path, named):
    edit_recipe(stranger, *RECIPES[named])
    code, out, err = run("report", "strange")
    assert code == 0 and "evil:" in (stranger.path / "report.html").read_text(), err
    assert not (tmp_path / "ran").exists() and not reached


@pytest.mark.slow
def test_a_strangers_plain_run_works_without_trust_and_without_the_network(run, stranger, reached, tmp_path):
    edit_recipe(stranger, "pretrained: false", "pretrained: true")
    edit_recipe(stranger, "download: false", "download: true")
    edit_recipe(stranger, "track: []", "track: [wandb]")
    edit_recipe(stranger, "cache: auto", "cache: disk")
    card = json.loads((stranger.path / "student.json").read_text())
    edit_card(stranger, student={**card["student"], "options": {"pretrained": True, "cache_dir": str(tmp_path / "x")}})
    for command in ("eval", "predict", "export", "teacher"):
        code, _, err = run(*ON_CARD[command])
        assert code == 0, err
    finish_never(stranger)
    code, _, err = run("train", "--resume", "strange")
    assert code == 0, err
    assert "note: machine.track=['wandb'] of strange is ignored, as this machine did not sign it" in err
    assert not reached
    made = {path.name for path in tmp_path.iterdir()}
    assert made <= {"evil.py", "strange", "image.png", "new", "config", "__pycache__"}


WEIGHTS = "ran.pth"
REACHES = {
    "timm's weights": {"student": {"name": "timm:resnet18", "options": {"pretrained": True}}},
    "a file of timm's": {
        "student": {"name": "timm:resnet18", "options": {"pretrained_cfg_overlay": {"file": WEIGHTS}}}
    },
    "the Hub": {"student": {"name": "timm:hf-hub:a/b"}},
    "torchvision's weights": {"student": {"name": "torchvision:resnet18", "options": {"weights": "DEFAULT"}}},
    "a checkpoint": {"student": {"name": "smp:Unet/tu-resnet18", "options": {"checkpoint_path": WEIGHTS}}},
    "a function that opens files": {"data": {"source": "x.tar", "opener": "evil:open"}},
    "a data set of the Hub": {"data": {"source": "hf:cifar10", "download": True}},
    "a data set of torchvision": {"data": {"source": "torchvision:CIFAR10", "download": True, "root": "far"}},
}


@pytest.mark.parametrize("what", REACHES)
def test_names_and_options_of_a_strangers_card_fetch_and_unpickle_nothing(run, stranger, reached, tmp_path, what):
    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    (tmp_path / WEIGHTS).write_bytes(pickle.dumps(Trap()))
    card = json.loads((stranger.path / "student.json").read_text())
    edit_card(stranger, **{part: {**card[part], **values} for part, values in REACHES[what].items()})
    code, _, err = run("eval", "strange")
    assert code == 1 and err.splitlines()[-1].startswith("error: ")  # none of them fits the weights or is here
    assert not reached and not (tmp_path / "ran").exists() and not (tmp_path / "far").exists()


def test_a_strangers_data_set_is_not_unpacked_into_a_cache(run, stranger, tmp_path, monkeypatch):
    card = json.loads((stranger.path / "student.json").read_text())
    edit_card(stranger, data={**card["data"], "source": "hf:images"})
    edit_recipe(stranger, "source: digits", "source: hf:images")
    finish_never(stranger)
    reason = "its data.source=hf:images would be unpacked outside of it; name the images yourself"
    for words in (["eval", "strange"], ["train", "--resume", "strange"]):
        code, _, err = run(*words)
        assert code == 1 and reason in err
    assert run("predict", "strange", "image.png")[0] == 0  # which needs none of them


def test_a_stranger_without_checkpoint_does_not_begin_anew_with_other_weights(run, stranger):
    edit_recipe(stranger, "pretrained: false", "pretrained: true")
    finish_never(stranger)
    for name in ("last.pt", "environment.json"):  # the latter knows another recipe
        (stranger.path / name).unlink()
    code, _, err = run("train", "--resume", "strange")
    assert code == 1 and "the weights that it starts from would be fetched anew, so say --trust" in err


def test_names_reach_the_terminal_and_the_log_as_text(run, stranger, tmp_path):
    trap = "\x1b]0;owned\x07\u202e\n\udcff"
    card = json.loads((stranger.path / "student.json").read_text())
    edit_card(stranger, classes=[name + "\x1b[31m\r\t" for name in card["classes"]])
    image = tmp_path / f"{trap}.png"
    shutil.copy(tmp_path / "image.png", image)
    printed = [
        run("predict", "strange", image),
        run("predict", "strange", "image.png"),
        run("eval", "strange", "--data", trap),
    ]
    printed += [run("predict", "strange", tmp_path / f"{trap}.gif"), run("export", "strange", "--out", tmp_path / trap)]
    assert [code for code, _, _ in printed] == [0, 0, 1, 1, 1]
    for _, out, err in printed:
        assert out.count("\n") + err.count("\n") == 1
        assert not set("\x1b\x07\u202e\r\udcff") & set(out + err)
    assert "\\x1b]0;owned\\x07\\u202e\\n\\udcff.png\t" in printed[0][1] and "\\x1b[31m\\r\\t" in printed[1][1]
    stranger.log(f"a {trap}")
    assert (stranger.path / "train.log").read_text().endswith("a \\x1b]0;owned\\x07\\u202e\\n\\udcff\n")


@pytest.mark.slow
def test_a_student_of_another_run_is_said_to_be(run, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, "mixed")
    assert "another run" not in run("predict", "mixed", tmp_path)[2] + run("eval", "mixed")[2]
    recipe = Run.open("mixed").recipe()
    for seed, method, sentence in [
        (7, "baseline", "is of another run or machine: this machine did not write it beside this recipe.yaml"),
        (0, "kd", "is of another run: it says method=baseline, and recipe.yaml says method=kd"),
    ]:
        update = {"seed": seed, "method": recipe.method.model_copy(update={"name": method})}
        Path("mixed/recipe.yaml").write_text(sign_text(dump(recipe.model_copy(update=update))))
        code, out, err = run("eval", "mixed")
        assert code == 0 and "top-1" in out and err.count("note: mixed/student.json") == 1 and sentence in err
        Path("mixed/last.pt").unlink(missing_ok=True)
        assert sentence in run("train", "--resume", "mixed")[2]


def test_a_comparison_in_a_run_folder_is_refused(run, trained):
    before = sorted(trained.iterdir())
    code, _, err = run("compare", *TINY[:-1], "methods=baseline", "seeds=1", f"out={trained}")
    assert code == 1 and "is itself a run, and a comparison is a folder of runs; choose another `out=`" in err
    assert sorted(trained.iterdir()) == before


@pytest.mark.slow
def test_a_damaged_student_of_a_finished_run_is_written_again(run, stranger):
    weights = stranger.path / "student.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    code, _, err = run("eval", "strange")
    assert code == 1 and "continue the run with `--resume strange`" in err
    assert run("train", "--resume", "strange")[0] == 0
    assert weights.read_bytes() == whole and run("eval", "strange")[0] == 0
