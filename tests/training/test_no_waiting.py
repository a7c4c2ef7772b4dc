"""A training step asks the device for no value and copies nothing that it would have to wait for.

Shown on the meta device, whose tensors have no values: whatever needs one of them raises.
"""

from unittest import mock

import pytest
import torch

from helpers.batches import small_batch, small_task
from helpers.meta_device import NoWaiting, on_device, on_the_host, one_run, train_on_meta
from selfdistill.build import create_mixer
from selfdistill.config.recipe import MixPart
from selfdistill.methods import find_method
from selfdistill.methods.baseline import Baseline
from selfdistill.tasks import find_task


@pytest.fixture(autouse=True)
def on_meta(monkeypatch):
    train_on_meta(monkeypatch)


@pytest.mark.slow
def test_no_step_of_frskd_waits_for_the_device():
    one_run(find_method("frskd"), "segmentation")


@pytest.mark.parametrize(
    ("name", "kind"), [("mixup", "classification"), ("cutmix", "classification"), ("cutmix", "segmentation")]
)
def test_mixing_a_batch_waits_for_nothing(name, kind):
    task = small_task(kind)
    batch = on_device(small_batch(Baseline, task))
    with NoWaiting(), mock.patch("torch.tensor", on_the_host):
        mixed = create_mixer(MixPart(name=name, probability=0.9), task, find_task(task.kind))(batch)
    assert mixed.images.is_meta and mixed.target.is_meta
    assert kind == "segmentation" or mixed.soft_target.is_meta


WAITS = {
    "a number": lambda x: x * x.mean().item(),
    "a decision": lambda x: x if x.mean() > 0 else -x,
    "a mask as an index": lambda x: x[x > 0],
    "a mask to write to": lambda x: x.index_put((x > 0,), x.mean()),
    "a new tensor from the host": lambda x: x * torch.tensor(2.0, device=x.device),
    "a copy from the host": lambda x: x * torch.full((), 2.0).to(x.device),
    "a checked solution": lambda x: torch.linalg.solve(x.T @ x, x.T),
    "what differs": lambda x: torch.unique(x),
}


@pytest.mark.parametrize("what", WAITS)
def test_what_waits_is_found(what):
    class Waits(Baseline):
        def forward(self, batch, progress=0.0):
            step = super().forward(batch, progress)
            return step._replace(losses={"task": step.losses["task"] + WAITS[what](step.logits.detach()).mean()})

    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        one_run(Waits, "classification")
