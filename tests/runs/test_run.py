"""A run folder keeps what it was given, survives being killed, and trusts nothing it reads."""

import json
import math
import os
import pickle
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from selfdistill.config.read import parse
from selfdistill.config.recipe import Recipe
from selfdistill.metrics.classification import ClassificationScores
from selfdistill.runs.environment import environment
from selfdistill.runs.folder import Run, load_student, read_about, save_weights

STUDENT = {"name": "cifar:resnet8", "options": {}, "num_classes": 3, "image_shape": (3, 16, 16)}
ABOUT = {
    "task": "classification",
    "classes": ["a", "b", "c"],
    "student": STUDENT,
    "data": {},
    "method": "frskd",
    "step": 7,
}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "runs" / "first", Recipe())


def plain() -> nn.Module:
    from selfdistill.models import build_student

    return build_student("cifar:resnet8", num_classes=3, image_shape=(3, 16, 16))


def test_the_recipe_comes_back(tmp_path: Path) -> None:
    recipe = parse(
        {"method": {"name": "frskd", "alpha": 3.0}, "data": {"image_size": [24, 32]}, "epochs": 2, "seed": 5}
    )
    Run.create(tmp_path / "a" / "b" / "c", recipe)
    assert Run.open(tmp_path / "a" / "b" / "c").recipe() == recipe


def test_a_folder_with_a_run_is_not_taken(run: Run) -> None:
    with pytest.raises(ValueError, match="already holds a run; choose another `out=` or continue it with `--resume"):
        Run.create(run.path, Recipe())


def test_a_folder_with_other_files_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("dear")
    with pytest.raises(ValueError, match="holds other files, thesis.tex for one; choose another `out=`"):
        Run.create(tmp_path, Recipe())
    with pytest.raises(ValueError, match="thesis.tex is a file"):
        Run.create(tmp_path / "thesis.tex", Recipe())


def test_a_half_made_folder_is_no_run_and_can_be_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        Run.create(tmp_path / "run", Recipe())
    (tmp_path / "run" / ".recipe.tmp.yaml").write_text("epo")  # what a harder kill leaves
    with pytest.raises(ValueError, match="is not a run folder: it holds no recipe.yaml"):
        Run.open(tmp_path / "run")
    Run.create(tmp_path / "run", Recipe())
    assert sorted(entry.name for entry in Run.open(tmp_path / "run").path.iterdir()) == ["recipe.yaml"]


def test_a_mistyped_folder_gets_the_nearest_run(run: Run) -> None:
    with pytest.raises(ValueError, match="there is no run folder .*frist; did you mean .*first?"):
        Run.open(run.path.with_name("frist"))


def test_records_come_back_in_order(run: Run) -> None:
    assert run.metrics() == []
    run.append({"kind": "train", "epoch": 0, "step": 1, "losses": {"kd": torch.tensor(0.5)}, "path": Path("a")})
    run.append({"kind": "epoch", "epoch": 1, "step": 2, "scores": ClassificationScores(0.5, 1.0, 0.25, 0.125, 8)})
    run.append({"kind": "train", "epoch": 1, "step": 3, "lr": np.float64(0.5), "losses": {"kd": float("inf")}})
    assert run.metrics() == [
        {"kind": "train", "epoch": 0, "step": 1, "losses": {"kd": 0.5}, "path": "a"},
        {
            "kind": "epoch",
            "epoch": 1,
            "step": 2,
            "scores": {"top1": 0.5, "top5": 1, "nll": 0.25, "ece": 0.125, "count": 8},
        },
        {"kind": "train", "epoch": 1, "step": 3, "lr": 0.5, "losses": {"kd": float("inf")}},
    ]


def test_a_torn_last_line_is_left_out_and_written_over(run: Run) -> None:
    run.append({"kind": "train", "step": 1})
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "st')
    assert [record["step"] for record in run.metrics()] == [1]
    run.append({"kind": "train", "step": 2})
    assert [record["step"] for record in run.metrics()] == [1, 2]


def test_a_damaged_line_in_the_middle_is_named(run: Run) -> None:
    (run.path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ValueError, match="line 2 of .*metrics.jsonl is damaged"):
        run.metrics()


def test_rewind_drops_later_steps(run: Run) -> None:
    for step in range(1, 6):
        run.append({"kind": "train", "step": step})
    run.append({"kind": "note"})
    run.rewind(3)
    assert [record.get("step") for record in run.metrics()] == [1, 2, 3, None]


def test_a_checkpoint_comes_back(run: Run) -> None:
    state = {
        "step": 3,
        "model": plain().state_dict(),
        "nested": [(1, 2.5, None), {"best": True}],
        "dtype": torch.bfloat16,
    }
    run.save_checkpoint(state)
    run.save_checkpoint({"step": 2}, "best")
    loaded = run.load_checkpoint()
    assert run.load_checkpoint("best") == {"step": 2}
    assert loaded["nested"] == state["nested"] and loaded["dtype"] is torch.bfloat16
    torch.testing.assert_close(loaded["model"], state["model"], rtol=0, atol=0)


def test_a_run_without_checkpoint_says_so(run: Run) -> None:
    with pytest.raises(ValueError, match="holds no last.pt: it ended before its first checkpoint"):
        run.load_checkpoint()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [truncate, flip_a_bit, empty])
def test_a_damaged_checkpoint_is_named_with_the_way_out(run: Run, harm: Any) -> None:
    run.save_checkpoint({"weights": torch.arange(5000.0)})
    harm(run.path / "last.pt")
    with pytest.raises(ValueError, match=r"last\.pt is truncated or damaged \(.*\); start the run anew"):
        run.load_checkpoint()
    run.save_checkpoint({"weights": torch.arange(5000.0)}, "best")
    with pytest.raises(ValueError, match="copy best.pt over it and resume, or start the run anew"):
        run.load_checkpoint()


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (Path.touch, (self.target,))


def test_a_checkpoint_that_would_run_code_is_refused_by_name(run: Run, tmp_path: Path) -> None:
    torch.save({"step": 1, "trap": Bomb(tmp_path / "ran")}, run.path / "last.pt")
    with pytest.raises(ValueError, match=r"last\.pt is refused: reading it would run code \(.*pathlib"):
        run.load_checkpoint()
    (run.path / "last.pt").write_bytes(pickle.dumps({"trap": Bomb(tmp_path / "ran")}))
    with pytest.raises(ValueError, match="truncated or damaged"):
        run.load_checkpoint()
    assert not (tmp_path / "ran").exists()


def test_a_state_that_could_not_be_read_back_is_refused_when_saved(run: Run) -> None:
    run.save_checkpoint({"step": 1})
    with pytest.raises(ValueError, match=r"could not be read again without running code \(numpy"):
        run.save_checkpoint({"step": 2, "memory": np.zeros(3)})
    assert run.load_checkpoint() == {"step": 1}
    assert sorted(entry.name for entry in run.path.iterdir()) == ["last.pt", "recipe.yaml"]


@pytest.mark.parametrize(("module", "name"), [(torch, "save"), (os, "fsync"), (os, "replace")])
def test_a_failed_save_leaves_the_last_checkpoint(
    run: Run, monkeypatch: pytest.MonkeyPatch, module: Any, name: str
) -> None:
    run.save_checkpoint({"step": 1})

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(module, name, full)
        run.save_checkpoint({"step": 2})
    assert run.load_checkpoint() == {"step": 1}
    assert sorted(entry.name for entry in run.path.iterdir()) == ["last.pt", "recipe.yaml"]


def test_the_student_comes_back_as_the_plain_network(run: Run) -> None:
    student = plain().to(memory_format=torch.channels_last).train()
    student(torch.randn(4, 3, 16, 16))  # batch-norm statistics away from their start
    run.save_student(student.state_dict(), ABOUT)
    before = torch.get_rng_state()
    loaded = load_student(str(run.path))
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(part.training for part in loaded.modules())
    assert list(loaded.state_dict()) == list(plain().state_dict())
    torch.testing.assert_close(loaded.state_dict(), student.state_dict(), rtol=0, atol=0)
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(loaded(images), student.eval()(images))


def test_student_json_says_what_is_needed_to_use_the_network(run: Run) -> None:
    run.save_student(plain().state_dict(), {**ABOUT, "scores": ClassificationScores(0.5, 1.0, 0.25, 0.125, 8)})
    about = read_about(run.path)
    assert about["format"] == 1 and about["selfdistill"] == version("selfdistill")
    assert about["student"] == {**STUDENT, "image_shape": [3, 16, 16]}
    assert about["scores"]["nll"] == 0.25


def test_student_json_is_read_by_programs_that_know_no_nan(run: Run) -> None:
    run.save_student(plain().state_dict(), {**ABOUT, "scores": {"miou": 0.5, "iou": (0.5, math.nan), "nll": math.inf}})
    text = (run.path / "student.json").read_text()
    scores = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))["scores"]
    assert scores == {"miou": 0.5, "iou": [0.5, None], "nll": None}


def test_whoever_may_read_one_file_of_a_run_may_read_all(run: Run) -> None:
    run.save_student(plain().state_dict(), ABOUT)
    run.save_checkpoint({"step": 1})
    run.append({"step": 1})
    run.write_environment({"a": 1})
    run.log("a")
    assert len({entry.stat().st_mode for entry in run.path.iterdir()}) == 1
    assert len(list(run.path.iterdir())) == 7


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.register_buffer("start", self.first.bias.detach()[:2])


def test_shared_weights_are_kept_under_each_name(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    tied = Tied()
    save_weights(tmp_path / "tied.safetensors", tied.state_dict())
    weights = load_file(tmp_path / "tied.safetensors")
    assert weights.keys() == tied.state_dict().keys()
    Tied().load_state_dict(weights, strict=True)
    assert torch.equal(weights["second.weight"], tied.first.weight)


def test_a_state_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'_extra_state' of the student is no tensor"):
        save_weights(tmp_path / "a.safetensors", {"w": torch.zeros(1), "_extra_state": {"a": 1}})


def edited(run: Run, **changes: Any) -> None:
    path = run.path / "student.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_student_that_does_not_fit_is_refused(run: Run) -> None:
    run.save_student(plain().state_dict(), ABOUT)
    edited(run, student={**STUDENT, "num_classes": 5})
    with pytest.raises(
        ValueError, match=r"does not fit cifar:resnet8: for .* \(3, .*\) instead of \(5, .*, and 1 more"
    ):
        load_student(run.path)
    weights = plain().state_dict()
    first = next(iter(weights))
    run.save_student({**weights, "extra": torch.zeros(1)}, ABOUT)
    with pytest.raises(ValueError, match=r"for extra it holds \(1,\) instead of nothing$"):
        load_student(run.path)
    del weights[first]
    run.save_student(weights, ABOUT)
    with pytest.raises(ValueError, match=f"for {first} it holds nothing instead of"):
        load_student(run.path)


def test_a_damaged_or_missing_student_is_named(run: Run) -> None:
    with pytest.raises(ValueError, match="holds no student yet"):
        load_student(run.path)
    run.save_student(plain().state_dict(), ABOUT)
    truncate(run.path / "student.safetensors")
    with pytest.raises(ValueError, match="student.safetensors is truncated or damaged"):
        load_student(run.path)
    (run.path / "student.safetensors").unlink()
    with pytest.raises(ValueError, match="holds no student.safetensors"):
        load_student(run.path)
    (run.path / "student.json").write_text('{"format": 1, "classes": []}')
    with pytest.raises(ValueError, match="student.json is damaged: it has no 'student'"):
        load_student(run.path)
    (run.path / "student.json").write_text('{"format": 1, "cl')
    with pytest.raises(ValueError, match="student.json cannot be read as JSON"):
        load_student(run.path)


def test_a_newer_format_is_refused(run: Run) -> None:
    run.save_student(plain().state_dict(), ABOUT)
    edited(run, format=2, selfdistill="9.1")
    with pytest.raises(ValueError, match="has format 2, written by selfdistill 9.1, .* reads format 1; upgrade it"):
        read_about(run.path)


def test_the_environment_says_where_a_number_comes_from(run: Run) -> None:
    facts = environment(data="d1f")
    run.write_environment(facts)
    kept = json.loads((run.path / "environment.json").read_text())
    assert kept == facts and kept["data"] == "d1f"
    assert kept["versions"]["torch"] == version("torch") and kept["versions"]["selfdistill"] == version("selfdistill")
    assert kept["cores"] >= 1 and kept["memory_mib"] > 100 and kept["cpu"]
    assert kept["started"].endswith("+00:00") and Path(sys.argv[0]).name in kept["command"]


def test_a_resumed_runs_environment_is_kept_beside_the_first(run: Run) -> None:
    for number in range(3):
        run.write_environment({"number": number})
    kept = json.loads((run.path / "environment.json").read_text())
    assert kept == {"number": 0, "resumed": [{"number": 1}, {"number": 2}]}


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_environment_knows_the_commit_and_whether_it_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment()["git"] is None

    def git(*words: str) -> str:
        who = [
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@b.c",
            "-c",
            "commit.gpgsign=false",
            "-c",
            "core.hooksPath=/dev/null",
        ]
        return subprocess.run(["git", *who, *words], check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q")
    Path("code.py").write_text("1")
    git("add", "code.py")
    git("commit", "-q", "-m", "first")
    assert environment()["git"] == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    Path("code.py").write_text("2")
    assert environment()["git"]["dirty"] is True


def test_a_machine_without_git_or_proc_is_described_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr("selfdistill.runs.environment.subprocess.run", missing)
    monkeypatch.setattr(Path, "read_text", missing)
    facts = environment()
    assert facts["git"] is None and facts["cpu"]


def test_the_log_tells_the_time(run: Run) -> None:
    run.log("epoch 1 of 2")
    run.log("epoch 2 of 2")
    lines = (run.path / "train.log").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["epoch 1 of 2", "epoch 2 of 2"]
    assert lines[0].split(" ")[0].endswith("+00:00")
