"""What a student answered for each image, against loops over images and pixels."""

import math

import pytest
import torch

from helpers.tasks import CLASSIFICATION, SEGMENTATION
from selfdistill.metrics import outcomes as module
from selfdistill.metrics.calibration import BINS
from selfdistill.metrics.outcomes import ScoreSample, restore_outcomes

VOID = -100


def collect(task, logits, target, size=3):
    """The collector after batches of `size` images."""
    collector = task.outcomes(logits.shape[1], VOID)
    for parts in zip(logits.split(size), target.split(size), strict=True):
        collector.update(*parts)
    return collector


def images(count=8, classes=4):
    logits = 3 * torch.randn(count, classes)
    return logits, torch.randint(classes, (count,))


def masks(count=5, classes=3):
    logits = 3 * torch.randn(count, classes, 4, 6)
    target = torch.randint(classes, (count, 4, 6))
    target[torch.rand(target.shape) < 0.2] = VOID
    target[1] = VOID
    return logits, target


def test_each_image_has_its_row_in_the_order_of_the_split():
    logits, target = images()
    rows = collect(CLASSIFICATION, logits, target).compute()
    assert torch.equal(rows.logits, logits) and torch.equal(rows.label, target)
    for i, scores in enumerate(logits.tolist()):
        total = sum(math.exp(score) for score in scores)
        assert rows.predicted[i] == scores.index(max(scores))
        assert rows.confidence[i] == pytest.approx(math.exp(max(scores)) / total, rel=1e-5)
        assert rows.nll[i] == pytest.approx(math.log(total) - scores[target[i]], rel=1e-4, abs=1e-5)


def test_each_image_with_a_mask_has_its_counts_void_pixels_aside():
    logits, target = masks()
    rows = collect(SEGMENTATION, logits, target, size=2).compute()
    confusion = torch.zeros(3, 3, dtype=torch.int64)
    for i in range(len(target)):
        nll, bins = 0.0, torch.zeros(3, BINS, dtype=torch.float64)
        counts = torch.zeros(3, 3, dtype=torch.int64)
        for scores, label in zip(logits[i].flatten(1).T.tolist(), target[i].flatten().tolist(), strict=True):
            if label == VOID:
                continue
            total, predicted = sum(map(math.exp, scores)), scores.index(max(scores))
            counts[label, predicted] += 1
            nll += math.log(total) - scores[label]
            confidence = math.exp(max(scores)) / total
            bins[:, min(int(confidence * BINS), BINS - 1)] += torch.tensor([1, predicted == label, confidence])
        assert torch.equal(rows.intersection[i], counts.diagonal())
        assert torch.equal(rows.predicted[i], counts.sum(0)) and torch.equal(rows.labeled[i], counts.sum(1))
        assert rows.nll[i] == pytest.approx(nll, rel=1e-5, abs=1e-5)
        assert torch.equal(rows.bin_count[i], bins[0].long()) and torch.equal(rows.bin_hits[i], bins[1].long())
        torch.testing.assert_close(rows.bin_confidence[i], bins[2], rtol=1e-5, atol=1e-6)
        confusion += counts
    assert torch.equal(rows.confusion, confusion)


def test_the_rows_add_up_to_the_scores_of_the_split():
    logits, target = masks()
    metric = SEGMENTATION.metric(3, VOID)
    metric.update(logits, target)
    scores, rows = metric.compute(), collect(SEGMENTATION, logits, target).compute()
    union = rows.predicted.sum(0) + rows.labeled.sum(0) - rows.intersection.sum(0)
    assert scores.iou == pytest.approx((rows.intersection.sum(0) / union).tolist())
    assert scores.nll == pytest.approx((rows.nll.sum() / rows.labeled.sum()).item())
    gaps = (rows.bin_confidence.sum(0) - rows.bin_hits.sum(0)).abs().sum()
    assert scores.ece == pytest.approx((gaps / rows.bin_count.sum()).item())


@pytest.mark.parametrize(("task", "data"), [(CLASSIFICATION, images), (SEGMENTATION, masks)])
def test_a_split_without_images_on_this_process_has_no_rows(task, data):
    collector = task.outcomes(data()[0].shape[1], VOID)
    assert all(len(column) == 0 for name, column in collector.compute()._asdict().items() if name != "confusion")
    assert len(collector.sample().target) == 0


def test_of_many_scores_a_sample_is_kept(monkeypatch):
    monkeypatch.setattr(module, "KEPT_SCORES", 40)
    logits, target = images(count=11)
    whole = collect(CLASSIFICATION, logits[:10], target[:10])
    assert len(whole.compute().logits) == len(whole.sample().target) == 10
    more = collect(CLASSIFICATION, logits, target)
    assert more.compute().logits is None and len(more.sample().target) == 10


def test_a_sample_is_uniform_over_labeled_pixels_and_the_same_each_time():
    """Half of the pixels of the first image and all of the others are labeled; class scores tell where each lies."""
    target = torch.zeros(60, 20, 20, dtype=torch.int64)
    target[0, :, :10] = VOID
    logits = torch.arange(60.0)[:, None, None, None].expand(60, 2, 20, 20)
    sample = ScoreSample(2, most=3000)
    for number, (scores, labels) in enumerate(zip(logits, target, strict=True)):
        labeled = labels != VOID
        sample.add(scores[:, labeled].T, labels[labeled], seed=number)
    kept = sample.gather("cpu").logits[:, 0]
    counts = torch.bincount(kept.long(), minlength=60)
    assert len(kept) == 3000 and torch.equal(kept, kept.sort().values)
    expected = 3000 / 59.5
    assert abs(counts[0] - expected / 2) < 5 * (expected / 2) ** 0.5
    assert (counts[1:] - expected).abs().max() < 5 * expected**0.5


def test_what_is_no_outcomes_is_said():
    rows = collect(CLASSIFICATION, *images()).compute()
    columns = rows._asdict()
    assert torch.equal(restore_outcomes("ClassOutcomes", columns).label, rows.label)
    without = {name: value for name, value in columns.items() if name != "logits"}
    assert restore_outcomes("ClassOutcomes", without).logits is None
    dense = collect(SEGMENTATION, *masks()).compute()._asdict()
    assert restore_outcomes("PixelOutcomes", dense).nll.dtype == torch.float64
    for kind, changed, sentence in [
        ("Recipe", columns, "'Recipe', which are no outcomes"),
        ("PixelOutcomes", columns, "it holds label, .* instead of intersection, "),
        (
            "ClassOutcomes",
            {**columns, "label": columns["label"].int()},
            "label is torch.int32",
        ),
        ("ClassOutcomes", {**columns, "nll": columns["nll"][:3]}, "nll is .3,., and other columns have n=8"),
        ("ClassOutcomes", {**columns, "label": columns["label"] - 9}, "label holds -9"),
        ("ClassOutcomes", {**columns, "label": columns["label"] + 9}, "label holds 1., and there are 4 classes"),
        ("PixelOutcomes", {**dense, "bin_hits": dense["bin_hits"][:, :4]}, "bin_hits .* have b=15"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            restore_outcomes(kind, changed)
