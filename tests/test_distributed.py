"""One process: which it is, and exchanges that give back what they were given. Several are in slow tests."""

import pytest
import torch

from selfdistill import distributed


def test_exchanges_of_one_process_return_their_input():
    rows = torch.randn(3, 2, requires_grad=True)
    assert not distributed.is_distributed()
    assert torch.equal(distributed.gather_rows(rows), rows) and not distributed.gather_rows(rows).requires_grad
    assert distributed.local_rows(rows) is rows
    assert distributed.mean_over_processes(rows) is rows


@pytest.mark.parametrize(("rank", "is_first"), [(None, True), ("0", True), ("3", False)])
def test_a_process_knows_from_its_launcher_whether_it_is_the_first(monkeypatch, rank, is_first):
    if rank is None:
        monkeypatch.delenv("RANK", raising=False)
    else:
        monkeypatch.setenv("RANK", rank)
    assert distributed.is_first_process() is is_first


def test_the_number_of_processes_is_known_from_the_launcher(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert distributed.world_size() == 1
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert distributed.world_size() == 4
