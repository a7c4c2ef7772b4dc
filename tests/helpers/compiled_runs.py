"""Runs of every method, compiled and not.

Their process goes without the tests' type checks, through which the compiler cannot see.
"""

import traceback
from pathlib import Path

import torch
from torch import nn

from helpers.contract import FEWER_CASES
from helpers.networks import SmallSegmenter
from selfdistill.build import build
from selfdistill.config.read import read
from selfdistill.data.datasets import scenes
from selfdistill.methods import find_method
from selfdistill.runs.folder import Run
from selfdistill.training.loop import fit

# The forward passes of these methods are the same on images and on masks, up to what the losses do.
SAME_ON_MASKS = {"at", "deep_supervision", "kd", "label_smoothing", "sad", "tf_fd", "tf_kd_reg"}
CASES = [(name, kind) for name, kind in FEWER_CASES if kind != "segmentation" or name not in SAME_ON_MASKS]
STUDENT = "student=helpers.plain_students:Stages"
EPOCHS = ["epochs=2", "precision=fp32", "machine.compile=false", "data.drop_last=false"]
EPOCHS += ["optim.lr=1e-4"]  # faster, rounding errors grow
RUNS = {
    "multilabel": ["task=multilabel", "data.limit=52", STUDENT, "batch_size=16"],
    "classification": ["data.limit=52", STUDENT, "batch_size=16"],
    "segmentation": [
        *("task=segmentation", "data.limit=14", "data.image_size=32", "batch_size=4"),
        f"student={__name__}:segmenter",
    ],
}
MORE = {  # runs of a few methods with other settings: their words, and how many graphs they may have
    ("frskd", "bfloat16"): (["precision=bf16"], 1),
    ("frskd", "micro-batches"): (["optim.accumulate=2"], 1),
    ("frskd", "phases"): (["method.start=0.2", "method.settle=0.3", "method.teacher_average=0.9"], 3),
    ("frskd", "labels mixed half of the time"): (["mix=cutmix", "mix.probability=0.5"], 2),
}


# Joint graphs of both passes, which take twice as long: of the methods with most parts, on both kinds of output and
# under autocast. Micro-batches and mixed labels change who calls the graph, not the operations in it.
JOINT = {("frskd", "classification"), ("frskd", "segmentation"), ("frskd", "bfloat16")}
JOINT |= {("hsakd_online", "classification")}


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
        fit(job, Run.create(folder, job.recipe))
    return Run.open(folder).records()


def compiled_as_a_run_does(name, kind, folder, more=(), *, joint=False):
    """Trains uncompiled and compiled, with the graph as it was traced for a backend, and counts the graphs."""
    from torch._dynamo.testing import CompileCounterWithBackend

    eager = trained(name, kind, folder / f"{name}-{kind}{'-'.join(more)}", more)
    counter, as_told = CompileCounterWithBackend("aot_eager" if joint else "eager"), nn.Module.compile
    nn.Module.compile = lambda self, mode, **options: as_told(self, backend=counter, **options)
    try:
        compiled = trained(name, kind, folder / f"{name}-{kind}-c{'-'.join(more)}", [*more, "machine.compile=true"])
    finally:
        nn.Module.compile = as_told
    told, losses = ([each.losses for each in run if each.kind == "train"] for run in (eager, compiled))
    pairs = [(value, every[term]) for every, other in zip(told, losses, strict=True) for term, value in other.items()]
    off = max(abs(one - other) / (0.01 + abs(other)) for one, other in pairs)
    return {"graphs": counter.frame_count, "off": off, "seconds": compiled[-1].compile_seconds}


def compile_all(_, folder):
    torch.set_num_threads(1)
    scenes.SCENES |= {"val": 3, "test": 3}  # in this process alone
    scenes.DIGIT_SCENES |= {"train": 60, "val": 3, "test": 3}
    cases = {case: (*case, ()) for case in CASES}
    cases |= {(name, what): (name, "classification", tuple(words)) for (name, what), (words, _) in MORE.items()}
    results = {}
    for case, (name, kind, more) in cases.items():
        try:
            results[case] = compiled_as_a_run_does(name, kind, Path(folder), more, joint=case in JOINT)
        except Exception:
            results[case] = traceback.format_exc(limit=-3)
    torch.save(results, f"{folder}/graphs.pt")
