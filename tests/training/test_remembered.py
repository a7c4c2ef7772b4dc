"""Checkpoints of methods that remember every image: large tables are written once, and a run resumes with them."""

import pytest
import torch

from helpers.runs import Heard, StopAt, recipe, train, untimed, weights
from selfdistill.modules import remembered
from selfdistill.runs import folder
from selfdistill.runs.folder import Run
from selfdistill.training.signals import Interrupted

pytestmark = pytest.mark.slow
CHANGES = {"method": "ps_kd", "machine": {"checkpoint_minutes": 1e-9}}


class Killed(BaseException):
    """A kill, as far as a test can have one."""


@pytest.fixture(scope="module", autouse=True)
def every_table_is_large():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remembered, "LARGE", 1)
        yield


@pytest.fixture
def small(monkeypatch):
    """Has tables count as small ones again."""
    monkeypatch.setattr(remembered, "LARGE", 10**6)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """The method and the run from beginning to end."""
    return train(recipe(tmp_path_factory.mktemp("whole"), **CHANGES))[:2]


def stopped(path, step=7):
    with pytest.raises(Interrupted):
        train(recipe(path, **CHANGES), StopAt(step))
    return Run.open(path)


def assert_same(unbroken, method, run):
    for name, value in weights(unbroken[0]).items():
        assert torch.equal(value, weights(method)[name]), name
    assert untimed(unbroken[1]) == untimed(run)


@pytest.mark.parametrize("writes", ["last.pt", "last.1.pt"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_run_killed_around_the_writing_of_either_checkpoint_ends_alike(unbroken, tmp_path, monkeypatch, writes, when):
    write = folder._write_checkpoint

    def write_or_die(path, state, **options):
        dies = path.name == writes and state["step"] == 7
        if not (dies and when == "before"):
            write(path, state, **options)
        if dies:
            raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(folder, "_write_checkpoint", write_or_die)
        train(recipe(tmp_path / "run", **CHANGES))
    run = Run.open(tmp_path / "run")
    steps = [run.load_checkpoint(name)["step"] for name in ("last.pt", "last.1.pt")]
    assert (
        steps
        == {"last.pt": {"before": [6, 6], "after": [7, 6]}, "last.1.pt": {"before": [7, 6], "after": [7, 7]}}[writes][
            when
        ]
    )
    assert_same(unbroken, train(run.recipe(), resume=True)[0], run)


def test_the_table_is_in_the_last_checkpoint_alone(tmp_path):
    run = stopped(tmp_path / "run")
    last, before = (run.load_checkpoint(name) for name in ("last.pt", "last.1.pt"))
    assert last["method"].keys() - before["method"].keys() == {"past"} == set(before["left_out"])
    assert last["step"] == before["step"] == 7 and "left_out" not in last


@pytest.mark.parametrize("harm", ["cut", "missing"])
def test_without_the_last_checkpoint_a_run_goes_on_and_says_that_the_past_is_lost(tmp_path, harm):
    run, heard = stopped(tmp_path / "run"), Heard()
    file = run.path / "last.pt"
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:-999])
    else:
        file.unlink()
    _, _, result = train(run.recipe(), heard, resume=True)
    said = "damaged" if harm == "cut" else "last.pt is missing;"
    assert result.step == 10 and said in heard.sentences[0]
    assert heard.sentences[0].endswith(
        "after step 7; what the method remembered of each image is lost, and begins anew"
    )


def test_half_precision_resumes_bit_for_bit(unbroken, tmp_path):
    run = stopped(tmp_path / "run")
    method, _, _ = train(run.recipe(), resume=True)
    assert method.past.dtype == torch.float16
    assert_same(unbroken, method, run)


def test_a_large_table_in_single_precision_and_in_both_checkpoints_resumes_as_it_was(tmp_path, small, monkeypatch):
    whole = train(recipe(tmp_path / "whole", **CHANGES))[:2]
    runs = [stopped(tmp_path / name) for name in ("run", "damaged")]
    for run in runs:  # what versions wrote that knew no large tables
        assert all(run.load_checkpoint(name)["method"]["past"].any() for name in ("last.pt", "last.1.pt"))
    (runs[1].path / "last.pt").write_bytes(b"")
    monkeypatch.setattr(remembered, "LARGE", 1)
    for run in runs:
        method, _, _ = train(run.recipe(), resume=True)
        assert method.past.dtype == torch.float32
        assert all(torch.equal(value, weights(method)[name]) for name, value in weights(whole[0]).items())


def test_half_precision_lies_near_single_precision(unbroken, tmp_path, small):
    method, _, _ = train(recipe(tmp_path / "run", **CHANGES))
    assert method.past.dtype == torch.float32
    torch.testing.assert_close(unbroken[0].past.float(), method.past, rtol=0, atol=0.01)
