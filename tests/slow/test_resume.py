"""Runs with all that has a state, stopped and resumed; and killed while they save."""

import os
import sys

import pytest

from helpers.programs import run as run_program
from helpers.runs import stop_and_resume
from selfdistill.config.recipe import Recipe
from selfdistill.runs.files import remove_leftovers
from selfdistill.runs.folder import Run

pytestmark = pytest.mark.slow
FEATURES = {"name": "frskd", "feature_loss": "hint"}
TUNED = {
    "student": {"name": "cifar:resnet8", "freeze": ["conv1", "bn1", "layer1"], "unfreeze_at": 0.4},
    "optim": {"lr": 0.05, "layer_decay": 0.7, "method_lr": 0.1, "ema": 0.9},
    "method": "frskd",
}


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({"method": FEATURES, "mix": "cutmix", "optim": {"lr": 0.05, "ema": 0.9}}, 7),
        ({"optim": {"name": "adamw", "lr": 1e-3, "accumulate": 2, "clip": 1.0}, "mix": "mixup"}, 5),
        ({"method": "frskd_sla", "precision": "bf16", "max_steps": 6}, 5),
        *((TUNED, step) for step in (2, 6)),  # before the stem is freed, and after
    ],
)
def test_a_run_that_was_stopped_ends_with_the_same_weights_bit_for_bit(tmp_path, changes, step):
    stop_and_resume(tmp_path, changes, step)


KILLER = """
import os, random, signal, sys, time, torch
from selfdistill.runs.folder import Run

run = Run.open(sys.argv[1])
random.seed(0)
for start in range(0, 160, 10):
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        for step in range(start, 10**6):
            run.save_checkpoint({"step": step, "weights": torch.full((300_000,), float(step))})
            os.write(tell, b".")
    began = time.monotonic()
    saved = len(os.read(told, 1)) + len(os.read(told, 1))
    time.sleep(random.random() * (time.monotonic() - began) / 2)  # any moment of the third save
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    state, damage = run.load_whole_checkpoint()
    assert damage is None
    assert saved == 2 and state["step"] > start, (saved, start, state["step"])
    assert torch.equal(state["weights"], torch.full((300_000,), float(state["step"]))), state["step"]
    print(state["step"])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_a_run_killed_while_saving_leaves_a_whole_checkpoint(tmp_path):
    run = Run.create(tmp_path / "run", Recipe())
    words = [sys.executable, "-c", KILLER, str(run.path)]
    done = run_program(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == 16
    remove_leftovers(run.path)
    assert {entry.name for entry in run.path.iterdir()} <= {"last.pt", "last.1.pt", "recipe.yaml"}
