"""SLA and SLA-SD against the slow reference and the authors' numbers, and where their gradients go."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from helpers.batches import small_batch, small_task
from helpers.methods import names_reached, settled_in_double, small_method
from helpers.networks import CLASSES, small_student
from reference import sla as slow
from reference.frskd import turned
from selfdistill import Batch, Task, create_method
from selfdistill.methods import find_method

GOLDEN = Path(__file__).parents[1] / "golden" / "sla_sd.npz"
BOTH = pytest.mark.parametrize("name", ["sla", "sla_sd"])


def made(name, **settings):
    """The method in float64, its norms away from where they start, and a batch."""
    kind, task = find_method(name), small_task(side=8)
    method = settled_in_double(small_method(kind, task, **settings))
    batch = small_batch(kind, task, rows=5)
    return method, batch._replace(images=batch.images.double())


def agree(losses, expected):
    assert losses.keys() == expected.keys()
    for term, value in losses.items():
        np.testing.assert_allclose(value.item(), expected[term], rtol=1e-9, err_msg=term)


def scores(method, images):
    """Plain and joint scores of the rotated images, by hand."""
    with torch.no_grad():
        logits, features = method.taps(torch.from_numpy(turned(images.numpy())))
        joint = method.joint(features[-1].mean(dim=(2, 3)))
    return logits[::4].tolist(), joint.tolist()


@pytest.mark.parametrize("settings", [{}, {"weight": 4.0}], ids=str)
def test_sla_agrees_with_the_reference(settings):
    method, batch = made("sla", **settings)
    expected = slow.objective(*scores(method, batch.images), batch.target.tolist(), **settings)
    agree(method(batch).losses, expected)


@pytest.mark.parametrize("settings", [{}, {"temperature": 3.0, "weight": 0.5}], ids=str)
def test_sla_sd_agrees_with_the_reference(settings):
    method, batch = made("sla_sd", **settings)
    logits, joint = scores(method, batch.images)
    expected = slow.objective(logits, joint, batch.target.tolist(), weight=method.weight)
    agree(method(batch).losses, expected | slow.distilled(logits, joint, method.temperature))


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


def reached(method, term):
    """The networks to whose parameters a term sends a gradient, the student's classifier apart from its body."""
    named = names_reached(method, term)
    return {"classifier" if name.startswith("student.fc") else name.split(".")[0] for name in named}


@BOTH
def test_each_term_teaches_whom_it_should(name):
    method, batch = made(name)
    terms = method(batch).losses
    table = {"task": {"student", "classifier"}, "joint": {"student", "joint"}, "kd": {"student", "classifier"}}
    assert {term: reached(method, value) for term, value in terms.items()} == {term: table[term] for term in terms}
    assert ("kd" in terms) == (name == "sla_sd")


def test_agreement_of_both_classifiers_leaves_nothing_to_distil(monkeypatch):
    method, batch = made("sla_sd")
    logits = torch.randn(5, CLASSES, dtype=torch.float64)
    joint = logits.repeat_interleave(4, dim=0).repeat_interleave(4, dim=1)
    monkeypatch.setattr(method, "plain_and_joint", lambda images: (logits, joint))
    torch.testing.assert_close(method(batch).losses["kd"], torch.zeros((), dtype=torch.float64))


@BOTH
def test_all_rotations_go_through_the_student_at_once(name):
    method, batch = made(name)
    rows = []
    method.student.stem.register_forward_hook(lambda module, args, output: rows.append(len(output)))
    method(batch)
    assert rows == [4 * len(batch.images)]


@BOTH
def test_order_of_the_rows_does_not_matter(name):
    method, batch = made(name)
    backwards = Batch(batch.images.flip(0), batch.target.flip(0))
    first, second = method(batch), method(backwards)
    torch.testing.assert_close(first.losses, second.losses)
    torch.testing.assert_close(first.logits, second.logits.flip(0))


@BOTH
def test_turning_an_image_moves_its_joint_scores_to_other_rows(name):
    method, batch = made(name)
    _, joint = method.eval().plain_and_joint(batch.images)
    _, turned_joint = method.plain_and_joint(torch.rot90(batch.images, 1, dims=(2, 3)))
    torch.testing.assert_close(turned_joint.unflatten(0, (-1, 4)), joint.unflatten(0, (-1, 4)).roll(-1, dims=1))


@BOTH
def test_oblong_images_are_refused(name):
    with pytest.raises(ValueError, match="rotations need square images, and these are 16 x 12"):
        create_method(name, small_student(small_task()), Task("classification", CLASSES, (3, 16, 12)))


@BOTH
def test_mixed_labels_are_refused(name):
    method, batch = made(name)
    with pytest.raises(ValueError, match="SLA(SD)? needs one class for each image, and these labels are mixed"):
        method(batch._replace(soft_target=F.one_hot(batch.target, CLASSES).double()))


def test_only_the_student_ships():
    method, _ = made("sla_sd")
    extra = {name for name in method.state_dict() if not name.startswith("student.")}
    assert extra == {"joint.weight", "joint.bias"}
    assert method.joint.out_features == 4 * CLASSES
