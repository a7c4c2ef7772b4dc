"""The longer parts of the contract: learning, resuming, repeating, copying."""

import copy
import io

import pytest
import torch

from helpers.contract import every_case, made, sgd, train
from helpers.networks import small_student
from helpers.states import same, same_states

pytestmark = pytest.mark.slow


@every_case
def test_the_supervised_loss_of_one_batch_falls_by_40_percent_in_25_steps(name, kind):
    """With a teacher it may be the whole loss: some give the labels a twentieth of the weight, or none at first."""
    method, batch = made(name, kind)
    steps = train(method, batch, range(25))
    first, last = (method.task.loss(step.logits, batch.target) for step in (steps[0], steps[-1]))
    assert last < 0.6 * first or (method.needs_teacher and steps[-1].loss < 0.6 * steps[0].loss)


@every_case
def test_same_seed_gives_the_same_losses(name, kind):
    runs = []
    for _ in range(2):
        method, batch = made(name, kind)
        runs.append([{term: value.item() for term, value in s.losses.items()} for s in train(method, batch, range(3))])
    assert runs[0] == runs[1]


@every_case
def test_state_resumes_bit_for_bit(name, kind):
    method, batch = made(name, kind)
    optimizer = sgd(method)
    train(method, batch, range(3), optimizer)
    file = io.BytesIO()
    torch.save({"method": method.state_dict(), "optimizer": optimizer.state_dict()}, file)
    train(method, batch, range(3, 6), optimizer)

    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed, _ = made(name, kind, seed=9, student=small_student(method.task, seed=9))
    assert not same_states(resumed, method)
    resumed.load_state_dict(saved["method"], strict=True)
    optimizer = sgd(resumed)
    optimizer.load_state_dict(saved["optimizer"])
    train(resumed, batch, range(3, 6), optimizer)
    assert same_states(resumed, method)


@every_case
def test_copy_trains_apart_from_its_original(name, kind):
    method, batch = made(name, kind)
    untouched = copy.deepcopy(method.state_dict())
    twin = copy.deepcopy(method)
    steps = train(twin, batch, range(2))
    assert all(parameter.grad is None for parameter in method.parameters())
    assert all(same(value, untouched[key]) for key, value in method.state_dict().items())
    for ours, theirs in zip(train(method, batch, range(2)), steps, strict=True):
        assert torch.equal(ours.loss, theirs.loss)
    assert same_states(method, twin)


@every_case
def test_progress_may_be_a_number_or_a_tensor_and_has_a_default(name, kind):
    method, batch = made(name, kind)
    losses = []
    for arguments in ((), (0.0,), (torch.tensor(0.0),)):
        torch.manual_seed(0)
        losses.append(copy.deepcopy(method)(batch, *arguments).loss.item())
    assert losses[0] == losses[1] == losses[2]
