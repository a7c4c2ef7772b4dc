"""The slow half of the contract: every method is one graph, and two processes agree with one.

Both run in processes of their own, without the run-time type checks of the tests: the compiler cannot see through them.
"""

import functools
import traceback
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from conftest import SmallSegmenter, channel_norm, small_batch, small_method, small_student, small_task, small_teacher
from selfdistill import list_methods, losses
from selfdistill.build import build
from selfdistill.config.read import read
from selfdistill.methods import find_method
from selfdistill.runs.folder import Run

pytestmark = pytest.mark.slow

WORLD, ROWS, STEPS = 2, 16, 3
CASES = [(name, kind) for name in list_methods() for kind in sorted(find_method(name).tasks)]
every_case = pytest.mark.parametrize(("name", "kind"), CASES)


EPOCHS = ["epochs=3", "precision=fp32", "optim.lr=1e-4", "machine.compile=false"]  # faster, rounding errors grow
RUNS = {
    "classification": ["data.limit=52", "student=cifar:resnet8", "batch_size=16"],
    "segmentation": [
        *("task=segmentation", "data.limit=14", "data.image_size=32", "batch_size=4"),
        f"student={Path(__file__).stem}:segmenter",
    ],
}
MORE = {  # runs of a few methods with other settings: their words, and how many graphs they may have
    ("frskd", "bfloat16"): (["precision=bf16"], 1),
    ("frskd", "micro-batches"): (["optim.accumulate=2"], 1),
    ("frskd", "labels mixed half of the time"): (["mix=cutmix", "mix.probability=0.5"], 2),
}


def segmenter(num_classes):
    return SmallSegmenter(num_classes)


def trained(name, kind, folder, more=()):
    """What a run of the method logged; its folder is made unless it is there."""
    if not (folder / "recipe.yaml").exists():
        found = find_method(name)
        teacher = folder.parent / f"{found.teacher_method or 'baseline'}-{kind}"
        if found.needs_teacher:
            trained(found.teacher_method or "baseline", kind, teacher)
        words = [*EPOCHS, *RUNS[kind], f"method={name}", f"out={folder}", *more]
        job = build(read(None, [*words, *[f"method.teacher={teacher}"] * found.needs_teacher]))
        job.fit(Run.create(folder, job.recipe))
    return Run.open(folder).metrics()


def compiled_as_a_run_does(name, kind, folder, more=()):
    """Trains uncompiled and compiled, with the graph as it was traced for a backend, and counts the graphs."""
    from torch._dynamo.testing import CompileCounterWithBackend

    eager = trained(name, kind, folder / f"{name}-{kind}{'-'.join(more)}", more)
    counter, as_told = CompileCounterWithBackend("aot_eager"), nn.Module.compile
    nn.Module.compile = lambda self, mode, **options: as_told(self, backend=counter, **options)
    compiled = trained(name, kind, folder / f"{name}-{kind}-c{'-'.join(more)}", [*more, "machine.compile=true"])
    nn.Module.compile = as_told
    told, losses = ([each["losses"] for each in run if each["kind"] == "train"] for run in (eager, compiled))
    pairs = [(value, every[term]) for every, other in zip(told, losses, strict=True) for term, value in other.items()]
    off = max(abs(one - other) / (0.01 + abs(other)) for one, other in pairs)
    return {"graphs": counter.frame_count, "off": off, "seconds": compiled[-1]["compile_seconds"]}


def compile_all(_, folder):
    torch.set_num_threads(1)
    cases = {case: (*case, ()) for case in CASES}
    cases |= {(name, what): (name, "classification", tuple(words)) for (name, what), (words, _) in MORE.items()}
    results = {}
    for case, (name, kind, more) in cases.items():
        try:
            results[case] = compiled_as_a_run_does(name, kind, Path(folder), more)
        except Exception:
            results[case] = traceback.format_exc(limit=-3)
    torch.save(results, f"{folder}/graphs.pt")


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs")
    mp.spawn(compile_all, args=(str(folder),), nprocs=1)
    return torch.load(folder / "graphs.pt", weights_only=True)


@pytest.mark.parametrize(
    ("case", "allowed"), [*((case, 1) for case in CASES), *((case, count) for case, (_, count) in MORE.items())]
)
def test_a_run_is_one_graph_from_beginning_to_end_and_computes_the_same(graphs, case, allowed):
    """Three epochs, each with an incomplete last batch, and scores between them."""
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
