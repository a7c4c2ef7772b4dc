"""Training started by accelerate and torchrun, two processes on the CPU, against one process."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from selfdistill.build import build
from selfdistill.config.read import read
from selfdistill.runs.folder import Run
from selfdistill.training.loop import fit

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
FREE_PORT = ["--main_process_port", "0"]  # several of these tests may run on a machine
LAUNCHERS = {
    "accelerate": [
        BIN / "accelerate",
        "launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        *FREE_PORT,
        "-m",
        "selfdistill",
    ],
    "torchrun": [BIN / "torchrun", "--standalone", "--nproc_per_node", "2", "-m", "selfdistill"],
}
NET = """
from torch import nn

class Net(nn.Module):  # without batch norm, whose statistics are each process's own
    def __init__(self, num_classes):
        super().__init__()
        self.conv, self.act, self.fc = nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Linear(128, num_classes)

    def forward(self, images):
        return self.fc(self.act(self.conv(images)).flatten(1))
"""
WORDS = ["data.limit=100", "student=plain_net:Net", "batch_size=16", "precision=fp32", "method=baseline"]


@pytest.fixture
def call(tmp_path):
    (tmp_path / "plain_net.py").write_text(NET)

    def call(program, *words, wait=True):
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [*map(str, program), "train", *words],
            cwd=tmp_path,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if wait:
            out, _ = process.communicate()
            assert process.returncode == 0, out
        return process

    return call


def train_alone(folder, *words):
    """The same run in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        experiment = build(read(None, [*WORDS, *words, f"out={folder / 'one'}"]), trust=True)
        fit(experiment, Run.create(folder / "one", experiment.recipe))
    del sys.modules["plain_net"]


def numbers(folder):
    """Loss terms and scores of the first two epochs of a run, in order; later, rounding errors grow."""
    records = [record for record in Run.open(folder).records() if record.kind in ("train", "epoch")]
    records = [record for record in records if record.epoch <= 2]
    losses = [value for record in records if record.kind == "train" for value in record.losses.values()]
    scores = [record.scores for record in records if record.kind == "epoch"]
    return losses, scores


def compare(one, two):
    """What two processes logged and scored is what one did."""
    assert json.loads((two / "environment.json").read_text())["processes"] == 2
    (losses, scores), (shared_losses, shared_scores) = numbers(one), numbers(two)
    assert shared_losses == pytest.approx(losses, rel=1e-5)
    for alone, shared in zip(scores, shared_scores, strict=True):
        assert alone.count == shared.count == 359  # an odd number: one process holds a row more
        assert shared.top1 == alone.top1 and shared.nll == pytest.approx(alone.nll, rel=1e-5)


def test_two_processes_of_accelerate_compute_what_one_does(call, tmp_path):
    call(LAUNCHERS["accelerate"], *WORDS, "epochs=2", "out=two")
    train_alone(tmp_path, "epochs=2")
    compare(tmp_path / "one", tmp_path / "two")


def test_two_processes_of_torchrun_compute_what_one_does_and_stop_together(call, tmp_path):
    """And the resumed run has the same weights."""
    words = ["optim.accumulate=2", "epochs=20"]
    call(LAUNCHERS["torchrun"], *WORDS, *words, "out=two")
    train_alone(tmp_path, *words)
    compare(tmp_path / "one", tmp_path / "two")
    process = call(LAUNCHERS["torchrun"], *WORDS, *words, "out=stopped", wait=False)
    metrics = tmp_path / "stopped" / "metrics.jsonl"
    while not metrics.exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    if any(record.kind == "end" for record in Run.open(tmp_path / "stopped").records()):
        pytest.skip("the run ended before the signal came")
    call(LAUNCHERS["torchrun"], "--resume", "stopped")
    whole, again = (load_file(tmp_path / name / "student.safetensors") for name in ("two", "stopped"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)
