"""Which epoch is the best: by the score that the recipe names."""

import math

import pytest

from helpers.runs import recipe, train
from selfdistill.build import build
from selfdistill.build.checks import check_machine
from selfdistill.metrics.evaluation import rate_scores
from selfdistill.metrics.scores import ClassificationScores, SegmentationScores
from selfdistill.report.live import read_progress
from selfdistill.runs.folder import Run
from selfdistill.runs.student import read_card

SCORES = ClassificationScores(top1=0.5, top5=0.9, nll=1.5, ece=0.1, count=8)


def test_a_score_is_rated_so_that_higher_is_better():
    assert rate_scores(SCORES) == rate_scores(SCORES, "top1") == 0.5
    assert (rate_scores(SCORES, "nll"), rate_scores(SCORES, "ece")) == (-1.5, -0.1)
    assert rate_scores(SCORES, "balanced_accuracy") == 0.5  # of equally frequent classes
    assert rate_scores(SCORES._replace(balanced_accuracy=0.3), "balanced_accuracy") == 0.3
    masks = SegmentationScores(miou=0.2, pixel_accuracy=0.3, boundary_f=math.nan, nll=1.0, ece=0.1, iou=(0.2,), count=1)
    assert rate_scores(masks) == 0.2 and rate_scores(masks, "boundary_f") == -math.inf
    for name in ("iou", "toptwo"):
        with pytest.raises(ValueError, match=f"best_by={name} is no score of these images"):
            rate_scores(masks, name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nll", "ece", "balanced_accuracy", None])
def test_the_best_epoch_is_that_of_the_named_score_with_a_moving_average(tmp_path, name):
    changes = {"epochs": 4, "best_by": name, "method": "baseline", "optim": {"lr": 0.3, "ema": 0.8}}
    _, run, _ = train(recipe(tmp_path / "run", **changes))
    ratings = [rate_scores(record.scores, name) for record in run.records() if record.kind == "epoch"]
    best, last = read_card(run.path / "best"), read_card(run.path)
    assert best.epoch == 1 + ratings.index(max(ratings)) and best.weights == last.weights == "ema"
    assert last.epoch == 4 and run.load_checkpoint()["best"] == max(ratings)
    assert read_progress(Run.open(run.path), run.records()).best == f"{abs(max(ratings)):.4g} after epoch {best.epoch}"


def test_patience_watches_the_named_score(tmp_path):
    fixed = {"name": "cifar:resnet8", "freeze": ["all", "-fc"]}
    changes = {"epochs": 9, "patience": 2, "optim": {"lr": 3.0}, "method": "baseline", "student": fixed}
    _, run, result = train(recipe(tmp_path / "run", best_by="nll", **changes))
    nll = [record.scores.nll for record in run.records() if record.kind == "epoch"]
    assert result.epoch == len(nll) == min(nll.index(min(nll)) + 3, 9)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("top_1", "best_by=top_1 is no score of task=classification; there are top1"),
        ("miou", "best_by=miou is no score of task=classification; there are top1, nll, ece, balanced_accuracy"),
    ],
)
def test_an_unknown_score_is_refused_before_training(tmp_path, name, message):
    with pytest.raises(ValueError, match=message):
        check_machine(build(recipe(tmp_path, best_by=name, method="baseline")))


def test_it_needs_validation_images(tmp_path):
    experiment = build(recipe(tmp_path, best_by="nll", method="baseline"))
    object.__setattr__(experiment, "split", "test")
    with pytest.raises(ValueError, match="best_by=nll needs validation images"):
        check_machine(experiment)
