"""The slow half of the contract: every method is one graph, and two processes agree with one.

Both run in processes of their own, without the run-time type checks of the tests: the compiler cannot see through them.
"""

import copy
import functools
import traceback

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from conftest import channel_norm, small_batch, small_method, small_student, small_task, small_teacher
from selfdistill import list_methods, losses
from selfdistill.methods import find_method

pytestmark = pytest.mark.slow

WORLD, ROWS, STEPS = 2, 16, 3
CASES = [(name, kind) for name in list_methods() for kind in sorted(find_method(name).tasks)]
every_case = pytest.mark.parametrize(("name", "kind"), CASES)


def in_one_graph(name, kind):
    """Compiles a method as a whole, compares a few steps with eager ones, and counts the graphs."""
    from torch._dynamo.testing import CompileCounterWithBackend

    found, task = find_method(name), small_task(kind)
    ramped = {"warmup": 0.1, "ramp": 0.5} if {"warmup", "ramp"} <= found.hyperparameters().keys() else {}
    method, batch = small_method(found, task, **ramped), small_batch(found, task)
    eager = copy.deepcopy(method)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(method, fullgraph=True, backend=counter)
    for progress in (0.0, 0.05, 0.3, 0.9):
        steps = []
        for each in (compiled, eager):
            torch.manual_seed(0)
            step = each(batch, torch.tensor(progress))
            step.loss.backward()
            steps.append(step)
        for term, value in steps[1].losses.items():
            torch.testing.assert_close(steps[0].losses[term], value, rtol=1e-4, atol=1e-6)
    for (each, ours), theirs in zip(method.named_parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-4, msg=f"gradient of {each}")
    return counter.frame_count


def compile_all(_, folder):
    torch.set_num_threads(1)
    results = {}
    for case in CASES:
        torch._dynamo.reset()
        try:
            results[case] = in_one_graph(*case)
        except Exception:
            results[case] = traceback.format_exc(limit=-3)
    torch.save(results, f"{folder}/graphs.pt")


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs")
    mp.spawn(compile_all, args=(str(folder),), nprocs=1)
    return torch.load(folder / "graphs.pt", weights_only=True)


@every_case
def test_every_method_is_one_graph_for_all_of_training(graphs, name, kind):
    remembers = find_method(name).get_extra_state is not nn.Module.get_extra_state
    allowed = (1, 2) if remembers else (1,)  # what remembers the last batch has a first step of its own
    assert graphs[name, kind] in allowed, graphs[name, kind]


def test_ramp_up_is_one_graph_for_all_of_training():
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(lambda progress: losses.ramp_up(progress, 0.25, 0.5), fullgraph=True, backend=counter)
    for number in range(5):
        progress = torch.tensor(number / 5)
        torch.testing.assert_close(compiled(progress), losses.ramp_up(progress, 0.25, 0.5))
    assert counter.frame_count == 1


def steps_of(name, kind, *, live, rank=0, world=1):
    """Losses of some steps on one rank's rows, and the trained weights.

    The student has no batch norm; those of a method's own nets are at rest, in eval mode, unless they are `live`.
    """
    found, task = find_method(name), small_task(kind)
    method = small_method(found, task, student=small_student(task, norm=channel_norm))
    for norm in [] if live else batch_norms(method):
        norm.eval()
    whole = small_batch(found, task, rows=ROWS)
    if kind == "segmentation":  # as many labelled pixels in every part: then a mean of means is the mean
        whole = whole._replace(target=whole.target.clamp(min=0))
    batch = type(whole)(*[None if part is None else part.chunk(world)[rank] for part in whole])
    module = DistributedDataParallel(method) if world > 1 else method
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.01, momentum=0.9)
    seen = []
    for number in range(STEPS):
        torch.manual_seed(number)
        step = module(batch, torch.tensor(number / STEPS))
        optimizer.zero_grad()
        step.loss.backward()
        optimizer.step()
        method.after_step()
        seen.append({term: value.item() for term, value in step.losses.items()})
    return {"losses": seen, "weights": {key: p.detach().clone() for key, p in method.named_parameters()}}


def batch_norms(method):
    return [module for module in method.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def share(rank, folder):
    """What one of the processes does: every method, one after another."""
    torch.set_num_threads(1)
    for name, kind in CASES:  # teachers are trained before there are others to share their batch with
        if find_method(name).needs_teacher:
            small_teacher(find_method(name).teacher_method, small_task(kind))
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=WORLD)
    results = {
        (*case, live): steps_of(*case, live=live, rank=rank, world=WORLD) for case in CASES for live in (False, True)
    }
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    mp.spawn(share, args=(str(folder),), nprocs=WORLD)
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
def draws(name, kind):
    """Whether a step depends on random numbers, which every process draws for its own rows."""
    found, task = find_method(name), small_task(kind)
    totals = []
    for seed in (0, 1):
        method, batch = small_method(found, task), small_batch(found, task)
        torch.manual_seed(seed)
        totals.append(method(batch, torch.tensor(0.5)).loss.item())
    return totals[0] != totals[1]


@every_case
def test_two_processes_agree_with_one(processes, name, kind):
    if draws(name, kind):
        pytest.skip("the processes draw different random numbers")
    alone, together = steps_of(name, kind, live=False), [each[name, kind, False] for each in processes]
    for number, terms in enumerate(alone["losses"]):
        assert mean_losses(together, number) == pytest.approx(terms, rel=1e-4, abs=1e-6)
    for key, value in alone["weights"].items():
        torch.testing.assert_close(together[0]["weights"][key], value, rtol=1e-4, atol=1e-5, msg=key)


@every_case
def test_batch_norms_of_half_the_rows_stay_close_to_those_of_all(processes, name, kind):
    if draws(name, kind):
        pytest.skip("the processes draw different random numbers")
    alone, together = steps_of(name, kind, live=True), [each[name, kind, True] for each in processes]
    assert mean_losses(together, 0) == pytest.approx(alone["losses"][0], rel=0.05)
    for number, terms in enumerate(alone["losses"]):
        assert sum(mean_losses(together, number).values()) == pytest.approx(sum(terms.values()), rel=0.1)
