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

from helpers.programs import start
from selfdistill.build import build
from selfdistill.config.read import read
from selfdistill.runs.folder import Run
from selfdistill.training.loop import fit

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
# With a free port, as several of these tests may run on a machine.
ACCELERATE = [BIN / "accelerate", "launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
TORCHRUN = ["--standalone", "--nproc_per_node", "2"]
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
WORDS += ["optim.accumulate=2", "epochs=20"]


def launch(folder, launcher, *words):
    """A launched program, which runs in the folder."""
    command = [*map(str, launcher), "-m", "selfdistill", "train", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return start(command, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(process):
    out, _ = process.communicate()
    assert process.returncode == 0, out


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """The folder of a run that accelerate launched."""
    folder = tmp_path_factory.mktemp("launched")
    (folder / "plain_net.py").write_text(NET)
    finish(launch(folder, ACCELERATE, *WORDS, "out=two"))
    return folder


def train_alone(folder):
    """The same run in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        experiment = build(read(None, [*WORDS, f"out={folder / 'one'}"]), trust=True)
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


def test_two_processes_of_accelerate_compute_what_one_does(launched):
    train_alone(launched)
    compare(launched / "one", launched / "two")


def test_two_processes_of_torchrun_stop_together_and_end_with_the_same_weights(launched):
    process = launch(launched, [BIN / "torchrun", *TORCHRUN], *WORDS, "out=stopped")
    metrics = launched / "stopped" / "metrics.jsonl"
    while not metrics.exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    if any(record.kind == "end" for record in Run.open(launched / "stopped").records()):
        pytest.skip("the run ended before the signal came")
    finish(launch(launched, [sys.executable, "-m", "torch.distributed.run", *TORCHRUN], "--resume", "stopped"))
    whole, again = (load_file(launched / name / "student.safetensors") for name in ("two", "stopped"))
    assert all(torch.equal(whole[name], again[name]) for name in whole)
