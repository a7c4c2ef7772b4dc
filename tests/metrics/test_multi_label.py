"""Scores of several classes an image, beside scikit-learn, and the thresholds that suit them."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, log_loss

from selfdistill import Batch, evaluate
from selfdistill.metrics.calibration import calibration_error
from selfdistill.metrics.multi_label import (
    MultiLabelCollector,
    average_precision,
    choose_thresholds,
    say_yes,
)
from selfdistill.metrics.multi_label_metric import MultiLabelMetric
from selfdistill.report.statistics import linearize_ap
from selfdistill.runs.outcomes import read_outcomes, save_outcomes


@pytest.fixture
def scored():
    """Scores of 200 images, many of them equal, and labels that they predict; the last class is never shown."""
    logits = (2 * torch.randn(200, 5)).round() / 2
    target = (torch.rand(200, 5) < (logits - 1).sigmoid()).long()
    target[:, 4] = 0
    return logits, target


def test_scores_are_those_of_scikit_learn(scored):
    logits, target = scored
    metric = MultiLabelMetric(5, thresholds=[0.3, 0.4, 0.5, 0.6, 0.7])
    for start in range(0, 200, 64):
        metric.update(logits[start : start + 64], target[start : start + 64])
    scores = metric.compute()
    shown, probabilities = target[:, :4].numpy(), logits.double().sigmoid().numpy()
    ap = average_precision_score(shown, logits[:, :4].numpy(), average=None)
    assert scores.ap[:4] == pytest.approx(ap.tolist()) and math.isnan(scores.ap[4])
    assert scores.map == scores.main == pytest.approx(ap.mean())
    for thresholds, macro, micro in (
        (np.full(5, 0.5), scores.f1_macro, scores.f1_micro),
        (np.array(metric.thresholds), scores.thresholds_f1_macro, scores.thresholds_f1_micro),
    ):
        said = (probabilities >= thresholds).astype(int)
        assert macro == pytest.approx(f1_score(shown, said[:, :4], average="macro"))
        assert micro == pytest.approx(f1_score(target.numpy(), said, average="micro"))
    assert scores.nll == pytest.approx(log_loss(target.flatten(), probabilities.flatten()))
    assert 0 < scores.ece < 0.3 and scores.count == 200 and scores.finite and "mAP" in scores.sentence()


def test_labels_not_known_are_as_if_they_were_not_there(scored, tmp_path):
    logits, target = scored
    known = torch.rand(target.shape) < 0.7
    known[0] = False
    metric, collector = MultiLabelMetric(5, thresholds=[0.3] * 5), MultiLabelCollector(5)
    for adds in (metric, collector):
        adds.update(logits, target.where(known, -100))
    scores, probabilities = metric.compute(), logits.double().sigmoid()
    columns = [(target[known[:, k], k].numpy(), probabilities[known[:, k], k].numpy()) for k in range(5)]
    ap = [average_precision_score(*column) for column in columns[:4]]
    assert scores.ap[:4] == pytest.approx(ap)
    assert scores.f1_macro == pytest.approx(np.mean([f1_score(labels, p >= 0.5) for labels, p in columns[:4]]))
    assert scores.thresholds_f1_micro == pytest.approx(f1_score(target[known], probabilities[known] >= 0.3))
    assert scores.nll == pytest.approx(log_loss(target[known], probabilities[known]))
    chosen = choose_thresholds(logits, target.where(known, -1))
    assert chosen[0] == choose_thresholds(logits[known[:, 0], :1], target[known[:, 0], :1])[0]
    save_outcomes(tmp_path / "o.safetensors", collector.compute())
    outcomes = read_outcomes(tmp_path / "o.safetensors")
    assert torch.equal(outcomes.shown, target.where(known, -1)) and outcomes.bin_count.sum() == known.sum()
    count = known.sum(dim=1)
    assert (outcomes.nll * count).sum().item() / count.sum().item() == pytest.approx(scores.nll)
    assert collector.sample().nll_at(1.0) == pytest.approx(scores.nll)
    rows = linearize_ap(logits.double().numpy(), target.where(known, -1).numpy())
    assert rows.mean(0)[:4] == pytest.approx(ap) and np.isnan(rows[:, 4]).all()


def test_thresholds_have_the_best_f1_of_all(scored):
    logits, target = scored
    thresholds = choose_thresholds(logits, target)
    said = say_yes(logits, thresholds).numpy()
    for k in range(4):
        best = max(f1_score(target[:, k], logits[:, k] >= cut) for cut in logits[:, k].unique())
        assert f1_score(target[:, k], said[:, k]) == pytest.approx(best)
        assert thresholds[k] not in logits[:, k].double().sigmoid()  # rounding flips no answer
    assert thresholds[4] == 0.5


def test_undefined_scores_are_not_numbers_and_broken_ones_are_told():
    assert math.isnan(average_precision(torch.tensor([1.0, 2.0]), torch.tensor([0, 0])))
    metric = MultiLabelMetric(2)
    with pytest.raises(ValueError, match="there is no image to evaluate on"):
        metric.compute()
    metric.update(torch.tensor([[math.nan, 1.0]]), torch.tensor([[1, 1]]))
    assert not metric.compute().finite
    with pytest.raises(ValueError, match=r"scores \(1, 3\) and labels \(1, 3\) must be \(b, 2\)"):
        metric.update(torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match="labels must be integers, 1 where an image shows a class, 0 where"):
        metric.update(torch.zeros(1, 2), torch.tensor([[0, 2]]))


def test_the_temperature_makes_the_answers_of_all_classes_likely(scored):
    logits, target = scored
    collector = MultiLabelCollector(5)
    collector.update(4 * logits, target)
    sample = collector.sample()
    temperature = sample.fit_temperature()
    assert sample.nll_at(temperature) < min(sample.nll_at(temperature * 1.1), sample.nll_at(temperature / 1.1))
    metric = MultiLabelMetric(5)
    metric.update(4 * logits / temperature, target)
    assert metric.compute().nll == pytest.approx(sample.nll_at(temperature))


def test_outcomes_are_those_of_the_metric_and_their_rows_average_to_its_scores(scored, tmp_path):
    logits, target = scored
    collector, metric = MultiLabelCollector(5), MultiLabelMetric(5)
    for start in range(0, 200, 64):
        collector.update(logits[start : start + 64], target[start : start + 64])
        metric.update(logits[start : start + 64], target[start : start + 64])
    save_outcomes(tmp_path / "o.safetensors", collector.compute())
    outcomes, scores = read_outcomes(tmp_path / "o.safetensors"), metric.compute()
    assert torch.equal(outcomes.shown, target) and torch.equal(outcomes.logits, logits)
    assert outcomes.nll.mean().item() == pytest.approx(scores.nll)
    bins = [getattr(outcomes, name).sum(0) for name in ("bin_count", "bin_hits", "bin_confidence")]
    assert calibration_error(*bins).item() == pytest.approx(scores.ece)
    rows = linearize_ap(outcomes.logits.numpy(), outcomes.shown.numpy())
    assert rows.mean(0)[:4] == pytest.approx(scores.ap[:4]) and np.isnan(rows[:, 4]).all()


def test_a_row_of_average_precision_is_its_slope_in_the_weight_of_the_image():
    scores, shown = np.array([3.0, 2, 2, 1, 0, -1]), np.array([1, 0, 1, 1, 0, 0])
    rows, step = linearize_ap(scores[:, None], shown[:, None])[:, 0], 1e-6
    average = average_precision_score(shown, scores)
    for i in range(6):
        weights = np.ones(6)
        weights[i] += step
        slope = (average_precision_score(shown, scores, sample_weight=weights) - average) / step
        assert rows[i] == pytest.approx(average + 6 * slope, abs=1e-4)


def test_thresholds_are_of_tasks_that_have_them(scored):
    logits, target = scored
    student = torch.nn.Linear(5, 5)
    with torch.no_grad():
        student.weight.copy_(torch.eye(5)), student.bias.zero_()
    options = {"num_classes": 5, "thresholds": [0.5] * 5}
    scores = evaluate(student, [Batch(logits, target)], kind="multilabel", **options)
    assert scores.thresholds_f1_macro == scores.f1_macro
    with pytest.raises(ValueError, match="thresholds have no effect on task=classification"):
        evaluate(student, [Batch(logits, target[:, 0])], kind="classification", **options)
