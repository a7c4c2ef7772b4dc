"""Both metrics as torchmetrics has them: states that add up, and start over."""

import math

import pytest
import torch
from torch import Tensor

from selfdistill.metrics.calibration import calibration_error, sum_bins
from selfdistill.metrics.classification import ClassificationMetric
from selfdistill.metrics.segmentation import SegmentationMetric

VOID = -100


def classified(rows: int) -> tuple[Tensor, Tensor]:
    return 2 * torch.randn(rows, 5), torch.randint(5, (rows,))


def segmented(images: int) -> tuple[Tensor, Tensor]:
    target = torch.randint(5, (images, 9, 7))
    target[:, :2, :3] = VOID
    return 2 * torch.randn(images, 5, 9, 7), target


@pytest.mark.parametrize(
    ("metric", "drawn"), [(ClassificationMetric(5), classified), (SegmentationMetric(5), segmented)]
)
def test_a_metric_can_be_read_between_batches_and_reset(metric, drawn):
    metric.reset()
    first, second = drawn(4), drawn(3)
    assert metric(*first).count == 4  # of this batch alone
    assert metric(*second).count == 3
    both = metric.compute()
    assert both.count == 7
    metric.reset()
    with pytest.raises(ValueError, match="no image to evaluate on"):
        metric.compute()
    metric.update(*(torch.cat(pair) for pair in zip(first, second, strict=True)))
    for name, value in metric.compute()._asdict().items():
        assert getattr(both, name) == pytest.approx(value, abs=1e-6), name


@pytest.mark.parametrize(
    ("metric", "drawn"), [(ClassificationMetric(5), classified), (SegmentationMetric(5), segmented)]
)
def test_states_of_two_processes_add_up(metric, drawn):
    metric.reset()
    apart, batches = type(metric)(5), [drawn(4), drawn(3)]
    for batch in batches:
        metric.update(*batch)
    for batch in batches[1:]:
        apart.update(*batch)
    one = type(metric)(5)
    one.update(*batches[0])
    one.merge_state(apart)
    for name, value in metric.compute()._asdict().items():
        assert getattr(one.compute(), name) == pytest.approx(value, abs=1e-6), name


def test_calibration_error_of_two_bins_by_hand():
    """Two predictions at 0.9 of which one is right, and one at 0.5 that is right: (2 * 0.4 + 0.5) / 3."""
    sums = sum_bins(torch.tensor([0.9, 0.9, 0.5]), torch.tensor([True, False, True]))
    assert calibration_error(*sums).item() == pytest.approx((2 * 0.4 + 0.5) / 3, abs=1e-6)
    assert math.isnan(calibration_error(*sum_bins(torch.empty(0), torch.empty(0, dtype=torch.bool))).item())
