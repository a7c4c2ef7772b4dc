"""The longest part of the contract: what every file of `methods/` teaches a small network in 25 steps."""

import pytest
import torch.nn.functional as F

from test_every_method import every_case, made, train

pytestmark = pytest.mark.slow


@every_case
def test_cross_entropy_of_one_batch_falls_by_40_percent_in_25_steps(name, kind):
    """With a teacher it may be the whole loss: some give the labels a twentieth of the weight, or none at first."""
    method, batch = made(name, kind)
    steps = train(method, batch, range(25))
    first, last = (F.cross_entropy(step.logits, batch.target) for step in (steps[0], steps[-1]))
    assert last < 0.6 * first or (method.needs_teacher and steps[-1].loss < 0.6 * steps[0].loss)
