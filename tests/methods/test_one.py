"""ONE against the slow reference, its gate, its ramp, and where its gradients go."""

import functools

import torch

from helpers.batches import small_task
from helpers.methods import method_and_batch
from helpers.networks import small_student
from selfdistill import create_method
from selfdistill.methods.one import Gate

made = functools.partial(method_and_batch, "one")


def test_shares_of_the_branches_add_up_to_one():
    shares = Gate(6, 3).train()(torch.randn(8, 6, 4, 4))
    assert shares.shape == (8, 3) and (shares > 0).all()
    torch.testing.assert_close(shares.sum(dim=1), torch.ones(8))


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
