"""Confusions and reliability: the same numbers as the metrics give."""

import numpy as np
import torch

from helpers.finished_runs import draw_outcomes, draw_pixel_outcomes, score_pixels
from selfdistill.metrics.calibration import calibration_error, sum_bins
from selfdistill.report.evidence import Arm, ArmRun
from selfdistill.report.sections.calibration import sum_bins as sum_arm
from selfdistill.report.sections.classes import count_pairs, find_mistakes, score_classes, share_rows


def run_of(outcomes, scores=None):
    return ArmRun(None, 0, {}, [], scores=scores or {}, outcomes=outcomes)


CLASSES = ("cat", "dog", "hen", "owl")


def test_pairs_are_counted_label_by_prediction():
    outcomes = draw_outcomes(4, 200, 1.0, seed=3)
    pairs = count_pairs(outcomes, 4)
    for label in range(4):
        for predicted in range(4):
            both = (outcomes.label == label) & (outcomes.predicted == predicted)
            assert pairs[label, predicted] == both.sum()
    right = [((outcomes.predicted == k)[outcomes.label == k]).double().mean().item() for k in range(4)]
    np.testing.assert_allclose(score_classes(run_of(outcomes), None, 4), 100 * np.array(right))


def test_the_score_of_a_class_of_masks_is_its_iou():
    outcomes = draw_pixel_outcomes(3, 5, seed=1)
    run = run_of(outcomes, {"iou": [*score_pixels(outcomes).iou[:2], None]})
    scores = 100 * np.array(score_pixels(outcomes).iou)
    np.testing.assert_allclose(score_classes(run, "iou", 3), [*scores[:2], np.nan])
    assert count_pairs(outcomes, 3).sum() == outcomes.labeled.sum()


def test_the_largest_confusions_of_either_arm_come_first():
    before = share_rows(np.array([[6, 4, 0, 0], [0, 9, 1, 0], [0, 0, 10, 0], [0, 0, 0, 0]]))
    after = share_rows(np.array([[9, 1, 0, 0], [0, 3, 7, 0], [0, 0, 10, 0], [0, 0, 0, 0]]))
    mistakes = find_mistakes(before, after, CLASSES)
    assert mistakes == [("dog", "hen", 0.1, 0.7), ("cat", "dog", 0.4, 0.1)]


def test_the_bins_of_the_diagram_give_the_calibration_error_of_the_metric():
    outcomes = draw_outcomes(4, 300, 1.0, seed=5)
    arm = sum_arm(Arm("a", 1, [ArmRun(None, 0, {}, [], outcomes=outcomes)], None))
    wanted = calibration_error(*sum_bins(outcomes.confidence, outcomes.predicted == outcomes.label))
    drawn = calibration_error(*map(torch.from_numpy, (arm.count, arm.hits, arm.confidence)))
    assert abs(wanted - drawn) < 1e-6
