"""Short runs whose batches are cut in several ways, in one process or dealt to several."""

import os
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist

from helpers.runs import StopAt
from selfdistill.build import build
from selfdistill.config.read import parse
from selfdistill.data.datasets import scenes
from selfdistill.runs.folder import Run
from selfdistill.training.loop import fit
from selfdistill.training.signals import Interrupted

IMAGES = {
    "data": {"source": "digits", "limit": 37, "drop_last": False},  # the last batch of an epoch has 5 images
    "student": "helpers.plain_students:classifier",
    "batch_size": 16,
    "epochs": 2,
    "optim": {"lr": 0.05},
}
MASKS = {
    "task": "segmentation",
    "data": {"source": "scenes", "limit": 24, "image_size": 32, "void": [0, 2, 255]},  # many pixels, unevenly spread
    "student": "helpers.plain_students:segmenter",
    "batch_size": 8,
    "epochs": 1,
    "optim": {"lr": 0.05},
}
CASES: dict[str, dict[str, Any]] = {
    "an uneven last batch": {**IMAGES, "method": "baseline"},
    "an uneven last batch and a memory of each image": {**IMAGES, "method": "ps_kd"},
    "frozen at first, then rates by layer": {
        **IMAGES,
        "method": "baseline",
        "student": {"name": "helpers.plain_students:classifier", "freeze": ["blocks.0"], "unfreeze_at": 0.5},
        "optim": {"lr": 0.05, "layer_decay": 0.7},
    },
    "mixup": {**IMAGES, "method": "baseline", "mix": "mixup"},
    "cutmix in some steps": {**IMAGES, "method": "baseline", "mix": {"name": "cutmix", "probability": 0.5}},
    "uneven class weights": {
        **IMAGES,
        "method": "baseline",
        "task": {"class_weights": [0.1, 1, 1, 1, 1, 1, 1, 1, 1, 5]},
    },
    "a balanced sampler": {**IMAGES, "method": "cs_kd", "data": {**IMAGES["data"], "sampler": "balanced"}},
    "weighted joint labels": {
        **IMAGES,
        "method": "sla",
        "task": {"class_weights": [0.1, 1, 1, 1, 1, 1, 1, 1, 1, 5], "loss": "focal", "label_smoothing": 0.1},
    },
    "void pixels, class weights and dice": {
        **MASKS,
        "method": "baseline",
        "task": {"kind": "segmentation", "loss": "dice+cross_entropy", "class_weights": "auto"},
    },
    "void pixels": {**MASKS, "method": "baseline"},
    "void pixels and a term over all pixels": {**MASKS, "method": {"name": "tfd", "alpha": 1.0}},
    "void pixels and cutmix": {**MASKS, "method": "baseline", "mix": "cutmix"},
}
# Stopped in the middle of a line of the log; each process has batch norms of its own, in the self-teacher.
# It stops after step 10 of 15, while the self-teacher settles.
STOPPED = {
    **CASES["an uneven last batch"],
    "method": {"name": "frskd", "start": 0.4, "settle": 0.4},
    "epochs": 5,
}


def recipe(case: dict[str, Any], folder: Path, accumulate: int) -> Any:
    fixed = {"precision": "fp32", "machine": {"device": "cpu", "compile": False}, "out": str(folder)}
    return parse({**case, **fixed, "optim": {**case["optim"], "accumulate": accumulate}})


def train(case: dict[str, Any], folder: Path, accumulate: int = 1, **options: Any) -> dict[str, Any]:
    """The logged losses and the weights of a run."""
    with mock.patch.dict(scenes.SCENES, val=3, test=3):  # an odd number: one process scores a scene more
        experiment, run = build(recipe(case, folder, accumulate)), Run(folder)
        if int(os.environ.get("RANK", "0")) == 0 and not options.get("resume"):
            Run.create(folder, experiment.recipe)
        fit(experiment, run, **options)
    if int(os.environ.get("RANK", "0")):
        return {}
    lines = [(record.step, record.losses, record.accuracy) for record in run.records() if record.kind == "train"]
    return {"lines": lines, "weights": experiment.method.student.state_dict()}


def share(rank: int, world: int, port: int, folder: str) -> None:
    """What one of the processes does: every case with and without micro-batches, then a run that stops and goes on."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    results = {
        (name, accumulate): train(case, Path(folder) / f"{number}-{accumulate}", accumulate)
        for number, (name, case) in enumerate(CASES.items())
        for accumulate in (1, 2)
    }
    results["whole"] = train(STOPPED, Path(folder) / "whole")
    try:
        train(STOPPED, Path(folder) / "stopped", callbacks=[StopAt(9)])
    except Interrupted:
        dist.barrier()
        results["stopped"] = train(STOPPED, Path(folder) / "stopped", resume=True)
    if rank == 0:
        torch.save(results, f"{folder}/results.pt")
    dist.destroy_process_group()
