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

from selfdistill.runs.folder import Run

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
ALONE = [sys.executable, "-m", "selfdistill"]
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
WORDS = ["data.limit=100", "student=plain_net:Net", "batch_size=16", "epochs=2", "precision=fp32"]


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


def numbers(folder):
    """Loss terms and scores of a run, in order."""
    records = Run.open(folder).records()
    losses = [value for record in records if record.kind == "train" for value in record.losses.values()]
    scores = [record.scores for record in records if record.kind == "epoch"]
    return losses, scores


@pytest.mark.parametrize(("launcher", "accumulate"), [("accelerate", 1), ("torchrun", 2)])
def test_two_processes_compute_what_one_does_at_the_same_global_batch(call, tmp_path, launcher, accumulate):
    words = [*WORDS, "method=baseline", f"optim.accumulate={accumulate}"]
    call(ALONE, *words, "out=one")
    call(LAUNCHERS[launcher], *words, "out=two")
    environment = json.loads((tmp_path / "two" / "environment.json").read_text())
    assert environment["processes"] == 2
    (one, scores), (two, shared_scores) = numbers(tmp_path / "one"), numbers(tmp_path / "two")
    assert two == pytest.approx(one, rel=1e-5)
    for alone, shared in zip(scores, shared_scores, strict=True):
        assert alone.count == shared.count == 359  # an odd number: one process holds a row more
        assert shared.top1 == alone.top1 and shared.nll == pytest.approx(alone.nll, rel=1e-5)


def test_two_processes_stop_together_and_resume_to_the_same_weights(call, tmp_path):
    words = [*WORDS, "method=frskd", "epochs=20"]
    call(LAUNCHERS["torchrun"], *words, "out=whole")
    process = call(LAUNCHERS["torchrun"], *words, "out=stopped", wait=False)
    metrics = tmp_path / "stopped" / "metrics.jsonl"
    while not metrics.exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    if any(record.kind == "end" for record in Run.open(tmp_path / "stopped").records()):
        pytest.skip("the run ended before the signal came")
    call(LAUNCHERS["torchrun"], "--resume", "stopped")
    whole, again = (load_file(tmp_path / name / "student.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)
