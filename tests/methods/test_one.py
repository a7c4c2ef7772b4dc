"""ONE against the slow reference, its gate, its ramp, and where its gradients go."""

import numpy as np
import pytest
import torch

from helpers.batches import small_batch, small_task
from helpers.methods import names_reached, settled_in_double, small_method
from helpers.networks import small_student
from reference import branches as slow
from reference.frskd import Weights, growing_weight
from selfdistill import create_method
from selfdistill.methods.one import ONE, Gate


def made(**settings):
    """The method in float64, its norms away from where they start, and a batch."""
    task = small_task()
    method = settled_in_double(small_method(ONE, task, **settings))
    batch = small_batch(ONE, task, rows=5)
    return method, batch._replace(images=batch.images.double())


def expected_terms(method, batch, progress):
    with torch.no_grad():
        logits, features = method.taps(batch.images)
        copies = [branch(features[-2]).numpy() for branch in method.branches]
    weights = Weights({name: value.numpy() for name, value in method.gate.state_dict().items()})
    shares = slow.gate_shares(features[-2].numpy(), weights)
    assert weights.all_read()
    scale = {"weight": method.weight, "temperature": method.temperature}
    ramp = growing_weight(progress, 0.0, method.ramp)
    return slow.one(logits.numpy(), copies, shares, batch.target.tolist(), ramp=ramp, **scale)


@pytest.mark.parametrize(
    ("settings", "progress"),
    [
        ({}, 0.0),
        ({}, 0.1),
        ({}, 0.5),
        ({"weight": 0.5, "temperature": 2.0, "copies": 1, "ramp": 0.0}, 0.0),
        ({"weight": 0.0, "copies": 3}, 0.5),
    ],
    ids=str,
)
def test_it_agrees_with_the_reference(settings, progress):
    method, batch = made(**settings)
    expected = expected_terms(method, batch, progress)
    if not method.weight:
        del expected["kd"]
    losses = method(batch, torch.tensor(progress, dtype=torch.float64)).losses
    assert losses.keys() == expected.keys()
    for term, value in losses.items():
        np.testing.assert_allclose(value.item(), expected[term], rtol=1e-9, err_msg=term)


def test_shares_of_the_branches_add_up_to_one():
    shares = Gate(6, 3).train()(torch.randn(8, 6, 4, 4))
    assert shares.shape == (8, 3) and (shares > 0).all()
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(8))


def reached(method, term):
    """The submodules of the method, the student's by name, to which a loss term sends a gradient."""
    return {".".join(name.split(".")[: 2 if name.startswith("student") else 1]) for name in names_reached(method, term)}


SHARED = {"student.stem", "student.stage1", "student.stage2"}
OWN = {"student.stage3", "student.fc"}


@pytest.mark.parametrize(
    ("term", "parts"),
    [
        ("task", SHARED | OWN),
        ("branches", SHARED | {"branches"}),
        ("ensemble", SHARED | OWN | {"branches", "gate"}),
        ("kd", SHARED | OWN | {"branches"}),
    ],
)
def test_the_gate_learns_from_the_ensembles_labels_alone(term, parts):
    method, batch = made()
    assert reached(method, method(batch, torch.tensor(0.5)).losses[term]) == parts


def test_each_branch_follows_the_ensemble_as_a_constant():
    """With one copy and an idle gate the ensemble is the mean, and the student's lesson is to be as the mean is."""
    method, batch = made(copies=1, ramp=0.0, temperature=1.0)
    with torch.no_grad():
        method.gate.layers[0].weight.zero_()
        method.gate.layers[1].bias.zero_()
    step = method(batch)
    (gradient,) = torch.autograd.grad(step.losses["kd"], step.logits)
    _, features = method.taps(batch.images)
    ensemble = (step.logits + method.branches[0](features[-2])) / 2
    torch.testing.assert_close(gradient, (step.logits.softmax(dim=1) - ensemble.softmax(dim=1)) / len(step.logits))


def test_branches_start_at_the_map_before_the_deepest():
    task = small_task()
    method = create_method("one", small_student(task), task, taps=["stage1", "stage3"])
    assert method.gate.layers[0].in_features == 8
    with pytest.raises(ValueError, match="this student has a single feature map"):
        create_method("one", small_student(task), task, taps=["stage3"])


@pytest.mark.parametrize("idle", [{"temperature": 2.0}, {"ramp": 0.5}], ids=str)
def test_a_setting_of_a_lesson_that_is_not_given_is_refused(idle):
    with pytest.raises(ValueError, match=f"ONE: {next(iter(idle))}=.* has no effect with weight=0"):
        made(weight=0.0, **idle)
