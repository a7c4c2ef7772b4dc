"""Runs that kept what they answered for each image are compared over seeds and test images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch

from selfdistill.config.read import parse
from selfdistill.metrics.outcomes import ClassOutcomes, PixelOutcomes
from selfdistill.metrics.scores import ClassificationScores, SegmentationScores
from selfdistill.report.comparison import compare_runs
from selfdistill.report.statistics import compare_both
from selfdistill.runs.folder import Run
from selfdistill.runs.records import EndRecord, EpochRecord, Parameters

IMAGES = 120
BASE = EndRecord(
    split="val",
    scores=None,
    epoch=6,
    step=60,
    seconds_per_step=0.1,
    peak_memory_mib=1.0,
    parameters=Parameters(student=10, training_only=0),
    train_seconds=6.0,
    eval_seconds=1.0,
    processor_seconds=6.0,
    cost_per_step=0.1,
    temperature=2.0,
)


def classify(rate: float, seed: int, labels: torch.Tensor, hard_images: int = 99) -> ClassOutcomes:
    """Answers that are right in about this share of the images; the same images are hard for every seed."""
    hard = np.random.default_rng(hard_images).random(len(labels))
    luck = np.random.default_rng(seed).random(len(labels))
    right = torch.from_numpy(0.7 * hard + 0.3 * luck < rate)
    predicted = torch.where(right, labels, (labels + 1) % 4)
    logits = 2 * torch.nn.functional.one_hot(predicted, 4).float()
    nll = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    return ClassOutcomes(labels, predicted, logits.softmax(1).max(1).values, nll, logits)


def score(outcomes: ClassOutcomes) -> ClassificationScores:
    top1 = (outcomes.predicted == outcomes.label).double().mean().item()
    return ClassificationScores(top1, 1.0, outcomes.nll.double().mean().item(), 0.1, len(outcomes.label))


@pytest.fixture
def made(tmp_path: Path) -> Any:
    """Makes a run whose test images were answered with this rate of success."""

    def make(method: str, seed: int, rate: float, **rest: Any) -> Path:
        path = tmp_path / f"{method}-s{seed}"
        labels = rest.pop("labels", torch.arange(IMAGES) % 4)
        run = Run.create(path, parse({"method": method, "seed": seed, "out": str(path)}))
        outcomes = classify(rate, 10 * seed + len(method), labels, rest.pop("hard_images", 99))
        run.save_outcomes("test", outcomes)
        scores = score(outcomes)
        calibrated = torch.nn.functional.cross_entropy(outcomes.logits / 2, labels).item()
        values = {"scores": scores._replace(top1=0.01), "train_scores": scores, "test_scores": scores}
        values |= {"nll_at_temperature": 9.0, "test_nll_at_temperature": calibrated, **rest}
        run.append(BASE.model_copy(update=values))
        return path

    return make


def test_statistics_are_those_of_the_rows(made: Any) -> None:
    seeds = range(4)
    paths = [made(name, seed, rate) for name, rate in (("baseline", 0.5), ("frskd", 0.65)) for seed in seeds]
    table = compare_runs(paths)
    found = table.rows[1]["statistics"]
    labels = torch.arange(IMAGES) % 4
    arms = [[classify(rate, 10 * seed + length, labels) for seed in seeds] for rate, length in ((0.5, 8), (0.65, 5))]
    right = np.array([[(run.predicted == labels).double().numpy() for run in arm] for arm in arms])
    expected = compare_both(100 * (right[1] - right[0]))
    assert found["interval"] == pytest.approx(expected._asdict())
    assert found["differences"] == pytest.approx(100 * (right[1] - right[0]).mean(1))
    by_seed = scipy.stats.ttest_rel(100 * right[1].mean(1), 100 * right[0].mean(1))
    assert found["over_seeds"]["p"] == pytest.approx(by_seed.pvalue) and found["basis"] == "seeds and test images"
    assert found["images"] == IMAGES and found["won"] == 4 and found["p_holm"] == pytest.approx(expected.p)
    low, high = found["over_images"]
    assert low < found["mean"] < high and high - low == pytest.approx(3.92 * found["image_error"], rel=0.2)
    assert table.rows[0]["test_error"] == pytest.approx(100 * right[0].mean(0).std(ddof=1) / IMAGES**0.5)
    assert table.split == "test" and table.rows[1]["top1"] == pytest.approx(right[1].mean())


def test_effects_and_classes_have_intervals(made: Any) -> None:
    table = compare_runs([made(n, s, r) for n, r in (("baseline", 0.5), ("frskd", 0.65)) for s in range(3)])
    row = table.rows[1]
    effects, classes = row["statistics"]["effects"], row["statistics"]["classes"]
    assert effects.keys() == {"nll", "ece", "nll_at_temperature"}
    for effect in effects.values():
        assert effect["interval"]["low"] <= effect["mean"] <= effect["interval"]["high"]
    assert effects["nll"]["basis"] == effects["nll_at_temperature"]["basis"] == "seeds and test images"
    assert effects["nll"]["interval"]["mean"] == pytest.approx(effects["nll"]["mean"], abs=1e-6)
    calibrated = effects["nll_at_temperature"]
    assert calibrated["interval"]["mean"] == pytest.approx(calibrated["mean"], abs=1e-6)  # at the test images, not 9.0
    assert effects["ece"]["basis"] == "seeds" and [*classes] == ["0", "1", "2", "3"]
    assert classes["0"]["images"] == IMAGES / 4
    first = classes["0"]["interval"]
    assert f"| 0 | {classes['0']['mean']:+.1f} [{first['low']:.1f}, {first['high']:.1f}] |" in table.markdown()
    assert np.mean([found["mean"] for found in classes.values()]) == pytest.approx(row["statistics"]["mean"])


def test_other_images_leave_the_interval_over_seeds(made: Any) -> None:
    paths = [made("baseline", seed, 0.5) for seed in range(3)]
    paths += [made("frskd", seed, 0.7, labels=(torch.arange(IMAGES) + 1) % 4) for seed in range(3)]
    table = compare_runs(paths)
    assert table.rows[1]["statistics"]["basis"] == "seeds" and "Intervals are over seeds alone" in table.markdown()
    assert table.verdicts[0].sentence.endswith("on these test images.")


def test_a_damaged_file_of_outcomes_leaves_the_interval_over_seeds(made: Any) -> None:
    paths = [made(name, seed, rate) for name, rate in (("baseline", 0.5), ("frskd", 0.7)) for seed in range(3)]
    (paths[4] / "outcomes-test.safetensors").write_bytes(b"damaged")
    assert compare_runs(paths).rows[1]["statistics"]["basis"] == "seeds"


@pytest.mark.slow
def test_a_few_test_images_cannot_tell(made: Any) -> None:
    labels = torch.arange(40) % 4
    arms = [("baseline", 0.55, 99), ("frskd", 0.6, 98)]
    paths = [made(name, seed, rate, labels=labels, hard_images=hard) for name, rate, hard in arms for seed in range(10)]
    table = compare_runs(paths)
    assert table.verdicts[0].verdict == "cannot tell" and "test images are too few" in table.verdicts[0].sentence


def test_a_baseline_of_equal_cost_decides_and_is_no_arm_of_its_own(made: Any) -> None:
    arms = {"baseline": 0.3, "frskd": 0.5, "label_smoothing": 0.52}
    named = {
        name: [made(name, seed, rate, processor_seconds=12.0 if name != "baseline" else 6.0) for seed in range(5)]
        for name, rate in arms.items()
    }
    named["baseline+epochs=12"] = named.pop("label_smoothing")
    table = compare_runs(named, "baseline", equal_cost={"frskd": "baseline+epochs=12"})
    assert [verdict.arm for verdict in table.verdicts] == ["frskd"] and table.rows[1]["run_slowdown"] == 2
    assert "; at equal training time" in table.verdicts[0].sentence and table.verdicts[0].verdict != "use it"
    assert table.rows[1]["at_equal_cost"]["against"] == "baseline+epochs=12"
    assert "Training longer helps, so more epochs first: baseline+epochs=12" in " ".join(table.sentences())
    assert "times the training time of" not in " ".join(table.sentences())


def test_a_baseline_that_cost_more_than_it_should_is_told(made: Any) -> None:
    seconds = {"baseline": 6.0, "frskd": 12.0, "label_smoothing": 18.0}
    named = {
        name: [made(name, seed, 0.5, processor_seconds=cost) for seed in range(3)] for name, cost in seconds.items()
    }
    sentences = compare_runs(named, "baseline", equal_cost={"frskd": "label_smoothing"}).sentences()
    assert any(
        sentence.startswith("label_smoothing took 1.50 times the training time of frskd") for sentence in sentences
    )


def segment(shift: int, seed: int) -> PixelOutcomes:
    draw = np.random.default_rng(seed)
    labeled = np.random.default_rng(5).integers(20, 60, size=(30, 3))
    intersection = np.minimum(labeled, draw.integers(5, 30, size=(30, 3)) + shift)
    wrong = labeled - intersection
    predicted = intersection + np.roll(wrong, 1, axis=1)
    confusion = np.diag(intersection.sum(0)) + np.diag(wrong.sum(0)) @ np.roll(np.eye(3, dtype=int), 1, axis=1)
    bins = torch.zeros(30, 15, dtype=torch.int64)
    tensors = [torch.from_numpy(value.astype(np.int64)) for value in (intersection, predicted, labeled, confusion)]
    return PixelOutcomes(*tensors, torch.rand(30).double(), bins, bins.clone(), bins.double())


def test_masks_are_compared_by_mean_iou_over_images(tmp_path: Path) -> None:
    paths = []
    for method, shift in (("baseline", 0), ("frskd", 6)):
        for seed in range(3):
            path = tmp_path / f"{method}-s{seed}"
            settings = {"method": method, "seed": seed, "task": "segmentation", "out": str(path)}
            run, outcomes = Run.create(path, parse(settings)), segment(shift, 10 * seed + shift)
            union = outcomes.predicted + outcomes.labeled - outcomes.intersection
            iou = tuple((outcomes.intersection.sum(0) / union.sum(0)).tolist())
            scores = SegmentationScores(float(np.mean(iou)), 0.9, 0.5, 1.0, 0.1, iou, 30)
            run.save_outcomes("val", outcomes)
            run.append(BASE.model_copy(update={"scores": scores}))
            paths.append(path)
    table = compare_runs(paths)
    found = table.rows[1]["statistics"]
    assert found["interval"]["mean"] == pytest.approx(found["mean"]) and found["basis"] == "seeds and test images"
    assert found["over_images"][0] < found["mean"] < found["over_images"][1]
    assert [*found["classes"]] == ["0", "1", "2"] and found["effects"]["boundary_f"]["basis"] == "seeds"
    assert "iou" not in table.csv().splitlines()[0].split(",") and "miou" in table.csv()
    assert table.split == "val" and table.rows[0]["per_seed"][0]["iou"]


def learn(made: Any, method: str, curve: list[float], train: float) -> Path:
    path = made(method, 0, 0.5)
    run = Run.open(path)
    end = run.records()[-1]
    for epoch, value in enumerate(curve, 1):
        scores = end.scores._replace(top1=value)
        run.append(EpochRecord(epoch=epoch, step=10 * epoch, split="val", scores=scores))
    values = {"scores": end.scores._replace(top1=curve[-1]), "train_scores": end.scores._replace(top1=train)}
    run.append(end.model_copy(update=values))
    return path


def test_an_arm_that_still_learns_is_told(made: Any) -> None:
    rising, flat = [0.1, 0.2, 0.3, 0.4, 0.45, 0.5], [0.1, 0.3, 0.4, 0.5, 0.5, 0.5]
    rows = [("baseline", rising, 0.55), ("frskd", flat, 0.55), ("byot", rising, 0.8), ("tfd", rising, 0.99)]
    table = compare_runs([learn(made, *row) for row in rows])
    assert [row["still_learning"] for row in table.rows] == [True, False, False, False]
    assert any(sentence.startswith("Still learning: more epochs first (baseline).") for sentence in table.sentences())
