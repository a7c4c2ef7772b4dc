"""A run folder keeps what it was given, survives being killed, and trusts nothing it reads."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from selfdistill.config.read import parse
from selfdistill.config.recipe import Recipe
from selfdistill.runs.environment import Environment
from selfdistill.runs.files import remove_leftovers
from selfdistill.runs.folder import Run


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
    (tmp_path / "run" / ".recipe.0123456789abcdef.tmp.yaml").write_text("epo")  # what a harder kill leaves
    with pytest.raises(ValueError, match="is not a run folder: it holds no recipe.yaml"):
        Run.open(tmp_path / "run")
    Run.create(tmp_path / "run", Recipe())
    remove_leftovers(tmp_path / "run")
    assert sorted(entry.name for entry in Run.open(tmp_path / "run").path.iterdir()) == ["recipe.yaml"]


def test_a_mistyped_folder_gets_the_nearest_run(run: Run) -> None:
    with pytest.raises(ValueError, match="there is no run folder .*frist; did you mean .*first?"):
        Run.open(run.path.with_name("frist"))


def test_a_checkpoint_comes_back(run: Run) -> None:
    state = {
        "step": 3,
        "model": plain().state_dict(),
        "nested": [(1, 2.5, None), {"best": True}],
        "dtype": torch.bfloat16,
    }
    run.save_checkpoint({"step": 2})
    run.save_checkpoint(state)
    loaded = run.load_checkpoint()
    assert run.load_checkpoint("last.1.pt") == {"step": 2}
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
        run.load_whole_checkpoint()


@pytest.mark.parametrize("harm", [truncate, flip_a_bit, empty])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(run: Run, harm: Any) -> None:
    for step in (1, 2):
        run.save_checkpoint({"step": step, "weights": torch.arange(5000.0)})
    assert run.load_whole_checkpoint()[0]["step"] == 2
    harm(run.path / "last.pt")
    state, damage = run.load_whole_checkpoint()
    assert state["step"] == 1 and damage is not None
    assert "last.pt is truncated or damaged" in damage and damage.endswith("last.1.pt, after step 1")
    run.save_checkpoint({"step": 3})  # the damaged one must not take the place of the one before
    assert run.load_checkpoint("last.1.pt")["step"] == 1 and run.load_checkpoint()["step"] == 3
    for name in ("last.pt", "last.1.pt"):
        harm(run.path / name)
    with pytest.raises(ValueError, match=r"last\.1\.pt is truncated or damaged \(.*\); start the run anew"):
        run.load_whole_checkpoint()


def test_a_kill_between_the_two_renames_leaves_the_checkpoint_before(run: Run) -> None:
    run.save_checkpoint({"step": 1})
    (run.path / "last.pt").rename(run.path / "last.1.pt")
    assert run.has_checkpoint and run.load_whole_checkpoint() == ({"step": 1}, None)


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


def test_the_log_tells_the_time(run: Run) -> None:
    run.log("epoch 1 of 2")
    run.log("epoch 2 of 2")
    lines = (run.path / "train.log").read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["epoch 1 of 2", "epoch 2 of 2"]
    assert lines[0].split(" ")[0].endswith("+00:00")


def test_a_resumed_runs_environment_is_kept_beside_the_first(run: Run) -> None:
    assert run.environment() is None
    for number in range(1, 4):
        run.write_environment(Environment(processes=number))
    kept = run.environment()
    assert kept is not None and kept.processes == 1
    assert [resumed.processes for resumed in kept.resumed] == [2, 3]


def test_a_damaged_environment_is_named(run: Run) -> None:
    (run.path / "environment.json").write_text('{"cores": "many"}')
    with pytest.raises(ValueError, match="environment.json is damaged: cores='many' should be a valid integer"):
        run.environment()
