"""Run folders that nobody trained: records, outcomes and the student's card, from random numbers."""

import numpy as np
import torch

from selfdistill.config.read import parse
from selfdistill.metrics.outcomes import ClassOutcomes, PixelOutcomes
from selfdistill.metrics.scores import ClassificationScores, SegmentationScores
from selfdistill.runs.environment import describe_environment
from selfdistill.runs.files import write_json
from selfdistill.runs.folder import Run
from selfdistill.runs.records import EndRecord, EpochRecord, GradientRecord, Parameters, TrainRecord
from selfdistill.runs.student import FORMAT, StudentCard

EPOCHS, STEPS = 4, 5  # of each run; steps of an epoch


def make_run(
    folder,
    method="baseline",
    seed=0,
    *,
    classes=("cat", "dog", "hen"),
    images=120,
    skill=2.0,
    settings=None,
    state="new",
):
    """The folder of a run on images, with a score that grows with `skill`.

    `state` is "new"; "old", as version 0.1 wrote; or "unfinished".
    """
    recipe = parse(
        {"method": method, "seed": seed, "data": {"source": "digits"}, "out": str(folder), **(settings or {})}
    )
    run = Run.create(folder, recipe)
    run.write_environment(describe_environment(precision="fp32"))
    outcomes = draw_outcomes(len(classes), images, skill, seed + 100 * (method != "baseline"))
    scores = score(outcomes)
    write_log(run, scores, is_self_teaching=method == "frskd", is_new=state == "new")
    write_card(run, classes, "classification", (1, 8, 8))
    if state != "unfinished":
        finish(run, scores, outcomes, is_new=state == "new")
    return run.path


def make_mask_run(folder, method="baseline", seed=0, *, classes=("sky", "road", "car"), images=6):
    """The folder of a run on masks of 20 x 20 pixels."""
    recipe = parse({"method": method, "seed": seed, "task": "segmentation", "out": str(folder)})
    run = Run.create(folder, recipe)
    outcomes = draw_pixel_outcomes(len(classes), images, seed + 100 * (method != "baseline"))
    scores = score_pixels(outcomes)
    write_log(run, scores, is_self_teaching=False, is_new=True)
    write_card(run, classes, "segmentation", (3, 20, 20))
    finish(run, scores, outcomes, is_new=True)
    return run.path


def draw_outcomes(classes, images, skill, seed):
    """Labels are the same for every seed, as the split is."""
    label = torch.arange(images) % classes
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, classes, generator=generator)
    logits[torch.arange(images), label] += skill
    confidence, predicted = logits.softmax(1).max(1)
    nll = torch.nn.functional.cross_entropy(logits, label, reduction="none")
    return ClassOutcomes(label, predicted, confidence, nll, logits)


def score(outcomes):
    right = (outcomes.predicted == outcomes.label).double().mean().item()
    return ClassificationScores(right, 1.0, outcomes.nll.mean().item(), 0.05, len(outcomes.label))


def draw_pixel_outcomes(classes, images, seed, pixels=400):
    generator = np.random.default_rng(seed)
    confusion = generator.multinomial(pixels // classes, np.full(classes, 1 / classes), size=(images, classes))
    confusion[:, range(classes), range(classes)] += pixels // 4
    right, predicted, labeled = np.einsum("ikk->ik", confusion), confusion.sum(1), confusion.sum(2)
    counts, hits = np.zeros((2, images, 15), dtype=np.int64)
    counts[:, 12], hits[:, 12] = labeled.sum(1), right.sum(1)
    nll = 0.5 * labeled.sum(1)
    arrays = (right.copy(), predicted, labeled, confusion.sum(0), nll, counts, hits, 0.85 * counts)
    return PixelOutcomes(*map(torch.from_numpy, arrays))


def score_pixels(outcomes):
    right, predicted, labeled = (values.sum(0).double() for values in outcomes[:3])
    iou = right / (predicted + labeled - right)
    accuracy = (right.sum() / labeled.sum()).item()
    return SegmentationScores(iou.mean().item(), accuracy, 0.5, 0.5, 0.1, tuple(iou.tolist()), len(outcomes.nll))


def write_log(run, scores, *, is_self_teaching, is_new):
    for epoch in range(1, EPOCHS + 1):
        step = STEPS * epoch
        losses = {"task": 2.0 / epoch, **({"kd": 0.1 * epoch} if is_self_teaching else {})}
        teacher = {"self_teacher_accuracy": 0.2 * epoch, "level_distances": {"layer1": 0.5, "layer2": 0.1 * epoch}}
        run.append(
            TrainRecord(
                epoch=epoch,
                step=step,
                lr=0.1 / epoch,
                losses=losses,
                accuracy=0.2 * epoch,
                seconds_per_step=0.1,
                **(teacher if is_self_teaching and is_new else {}),
            )
        )
        if is_new:
            run.append(
                GradientRecord(
                    epoch=epoch, step=step, shares={"task": 0.7, "kd": 0.3}, cosines={"task": 1.0, "kd": -0.2}
                )
            )
        run.append(EpochRecord(epoch=epoch, step=step, split="val", scores=scores))


def finish(run, scores, outcomes, *, is_new):
    measured = {
        "train_seconds": 2.0,
        "eval_seconds": 0.5,
        "processor_seconds": 2.5 + (3.0 if run.recipe().method.name != "baseline" else 0.0),
        "cost_per_step": 0.12,
        "train_scores": scores,
        "temperature": 1.2,
        "nll_at_temperature": 0.9 * scores.nll,
    }
    end = EndRecord(
        split="val",
        scores=scores,
        epoch=EPOCHS,
        step=EPOCHS * STEPS,
        seconds_per_step=0.1,
        peak_memory_mib=100.0,
        parameters=Parameters(student=1000, training_only=0),
        **(measured if is_new else {}),
    )
    run.append(end)
    if is_new:
        run.save_outcomes("val", outcomes)


def write_card(run, classes, task, shape):
    recipe = run.recipe()
    masks = {"values": range(len(classes)), "colours": [(20 * k % 256, 90, 160) for k in range(len(classes))]}
    card = StudentCard(
        task=task,
        classes=tuple(classes),
        masks=masks if task == "segmentation" else None,
        student={"name": "cifar:resnet8", "num_classes": len(classes), "image_shape": shape},
        data=recipe.data,
        method=recipe.method.name,
    )
    write_json(run.path / "student.json", {"format": FORMAT, "selfdistill": "0.1.0", **card.model_dump(mode="json")})
