"""SLA and SLA-SD against the slow reference and the authors' numbers, and where their gradients go."""

from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.methods import method_and_batch
from helpers.networks import CLASSES, small_student
from selfdistill import Batch, Task, create_method

GOLDEN = Path(__file__).parents[1] / "golden" / "sla_sd.npz"
BOTH = pytest.mark.parametrize("name", ["sla", "sla_sd"])


def test_sla_sd_has_the_authors_losses_and_gradients(monkeypatch):
    with np.load(GOLDEN) as archive:
        values = {key: torch.from_numpy(np.array(archive[key])) for key in archive.files}
    task = Task("classification", values["logits"].shape[1], (3, 8, 8))
    student = small_student(task)
    method = create_method("sla_sd", student, task, temperature=float(values["hyper.temperature"])).double()
    logits, joint = (values[name].requires_grad_() for name in ("logits", "joint_logits"))
    monkeypatch.setattr(method, "plain_and_joint", lambda images: (logits, joint))
    step = method(Batch(torch.zeros(len(logits), 3, 8, 8, dtype=torch.float64), values["target"]))
    for ours, theirs in {"task": "ce", "joint": "joint_ce", "kd": "self_distillation"}.items():
        torch.testing.assert_close(step.losses[ours], values[f"loss.{theirs}"].squeeze(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(step.loss, values["loss.total"].squeeze(), rtol=1e-9, atol=1e-12)
    step.loss.backward()
    torch.testing.assert_close(logits.grad, values["grad.logits"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(joint.grad, values["grad.joint_logits"], rtol=1e-9, atol=1e-12)


def test_agreement_of_both_classifiers_leaves_nothing_to_distil(monkeypatch):
    method, batch = method_and_batch("sla_sd")
    logits = torch.randn(5, CLASSES, dtype=torch.float64)
    joint = logits.repeat_interleave(4, dim=0).repeat_interleave(4, dim=1)
    monkeypatch.setattr(method, "plain_and_joint", lambda images: (logits, joint))
    torch.testing.assert_close(method(batch).losses["kd"], torch.zeros((), dtype=torch.float64))


@BOTH
def test_all_rotations_go_through_the_student_at_once(name):
    method, batch = method_and_batch(name)
    rows = []
    method.student.stem.register_forward_hook(lambda module, args, output: rows.append(len(output)))
    method(batch)
    assert rows == [4 * len(batch.images)]


@BOTH
def test_order_of_the_rows_does_not_matter(name):
    method, batch = method_and_batch(name)
    backwards = Batch(batch.images.flip(0), batch.target.flip(0))
    first, second = method(batch), method(backwards)
    torch.testing.assert_close(first.losses, second.losses)
    torch.testing.assert_close(first.logits, second.logits.flip(0))


@BOTH
def test_turning_an_image_moves_its_joint_scores_to_other_rows(name):
    method, batch = method_and_batch(name)
    _, joint = method.eval().plain_and_joint(batch.images)
    _, turned_joint = method.plain_and_joint(torch.rot90(batch.images, 1, dims=(2, 3)))
    torch.testing.assert_close(turned_joint.unflatten(0, (-1, 4)), joint.unflatten(0, (-1, 4)).roll(-1, dims=1))
