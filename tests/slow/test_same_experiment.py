"""A recipe is the same experiment in one process, in two, and in micro-batches."""

import socket

import pytest
import torch

from helpers.dealt_runs import CASES, share, train
from helpers.programs import call

pytestmark = pytest.mark.slow
WORLD = 2


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The results of two processes."""
    folder = tmp_path_factory.mktemp("together")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    call(share, WORLD, port, str(folder), processes=WORLD)
    return torch.load(folder / "results.pt", weights_only=True)


@pytest.mark.parametrize("name", CASES)
def test_processes_and_micro_batches_compute_what_one_batch_does(together, tmp_path, name):
    alone = train(CASES[name], tmp_path / "alone")
    assert alone["lines"]
    others = [train(CASES[name], tmp_path / "micro-batches", 3), together[name, 1], together[name, 2]]
    for other in others:
        for (step, losses, accuracy), (other_step, other_losses, other_accuracy) in zip(
            alone["lines"], other["lines"], strict=True
        ):
            assert step == other_step and accuracy == pytest.approx(other_accuracy, rel=1e-6)
            assert losses == pytest.approx(other_losses, rel=1e-6)
        for key, value in alone["weights"].items():
            torch.testing.assert_close(other["weights"][key], value, rtol=1e-6, atol=1e-8, msg=f"{name}: {key}")


def test_two_processes_that_go_on_log_the_means_of_a_whole_run(together):
    whole, stopped = together["whole"], together["stopped"]
    assert whole["lines"] == stopped["lines"]
    assert all(torch.equal(value, stopped["weights"][key]) for key, value in whole["weights"].items())
