"""The slow half of the contract: every method is one graph, and two processes agree with one.

Both run in processes of their own, without the run-time type checks of the tests: the compiler cannot see through them.
"""

import functools

import pytest
import torch

from helpers.batches import small_batch, small_task
from helpers.compiled_runs import CASES, MORE, compile_all
from helpers.contract import FEWER_CASES
from helpers.methods import float64_by_default, small_method
from helpers.processes import WORLD, share, steps_of
from helpers.programs import call
from selfdistill import losses
from selfdistill.methods import find_method

pytestmark = pytest.mark.slow

every_case = pytest.mark.parametrize(("name", "kind"), FEWER_CASES)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs")
    call(compile_all, str(folder))
    return torch.load(folder / "graphs.pt", weights_only=True)


@pytest.mark.parametrize(
    ("case", "allowed"), [*((case, 1) for case in CASES), *((case, count) for case, (_, count) in MORE.items())]
)
def test_a_run_is_one_graph_from_beginning_to_end_and_computes_the_same(graphs, case, allowed):
    """Two epochs, each with an incomplete last batch, and scores between them."""
    found = graphs[case]
    assert isinstance(found, dict), found
    assert found["graphs"] == allowed and found["off"] < (0.05 if "bfloat16" in case else 1e-3)
    assert found["seconds"] > 0


def test_ramp_up_is_one_graph_for_all_of_training():
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(lambda progress: losses.ramp_up(progress, 0.25, 0.5), fullgraph=True, backend=counter)
    for number in range(5):
        progress = torch.tensor(number / 5)
        torch.testing.assert_close(compiled(progress), losses.ramp_up(progress, 0.25, 0.5))
    assert counter.frame_count == 1


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    call(share, str(folder), processes=WORLD)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD)]


def mean_losses(together, number):
    first, second = (each["losses"][number] for each in together)
    assert first.keys() == second.keys()
    return {term: (value + second[term]) / WORLD for term, value in first.items()}


@every_case
def test_processes_hold_the_same_weights(processes, name, kind):
    for live in (False, True):
        first, second = (each[name, kind, live]["weights"] for each in processes)
        assert first.keys() == second.keys()
        assert all(torch.equal(value, second[key]) for key, value in first.items())


@functools.cache
@float64_by_default()
def draws(name, kind):
    """Whether a step depends on random numbers, which every process draws for its own rows."""
    found, task = find_method(name), small_task(kind)
    totals = []
    for seed in (0, 1):
        method, batch = small_method(found, task), small_batch(found, task)
        torch.manual_seed(seed)
        totals.append(method(batch, torch.tensor(0.5)).loss.item())
    return totals[0] != pytest.approx(totals[1], rel=1e-9)


@every_case
def test_two_processes_agree_with_one(processes, name, kind):
    if draws(name, kind):
        pytest.skip("the processes draw different random numbers")
    alone, together = steps_of(name, kind, live=False), [each[name, kind, False] for each in processes]
    for number, terms in enumerate(alone["losses"]):
        assert mean_losses(together, number) == pytest.approx(terms, rel=1e-9, abs=1e-12)
    for key, value in alone["weights"].items():
        torch.testing.assert_close(together[0]["weights"][key], value, rtol=1e-9, atol=1e-11, msg=key)


@every_case
def test_batch_norms_of_half_the_rows_stay_close_to_those_of_all(processes, name, kind):
    if draws(name, kind):
        pytest.skip("the processes draw different random numbers")
    alone, together = steps_of(name, kind, live=True), [each[name, kind, True] for each in processes]
    assert mean_losses(together, 0) == pytest.approx(alone["losses"][0], rel=0.05)
    for number, terms in enumerate(alone["losses"]):
        assert sum(mean_losses(together, number).values()) == pytest.approx(sum(terms.values()), rel=0.1)
