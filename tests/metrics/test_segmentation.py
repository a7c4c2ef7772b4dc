"""The scores of segmenters against slow re-derivations, void pixels and the size of the masks included."""

import json
import math
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference.dense_scores import slow_boundary_f, slow_dense_scores
from selfdistill import evaluate
from selfdistill.metrics import boundary
from selfdistill.metrics.boundary import boundary_f
from selfdistill.metrics.evaluation import restore_scores
from selfdistill.metrics.scores import ClassificationScores, SegmentationScores

VOID = -100


class Labelled(NamedTuple):
    images: Tensor
    target: Tensor


def blocks(images: int, classes: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Labels (b, h, w) in coarse blocks, about a tenth of them void."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.randint(classes, (images, 1, 4, 3), generator=random)
    coarse[torch.rand(coarse.shape, generator=random) < 0.1] = VOID
    return F.interpolate(coarse.double(), size=(height, width), mode="nearest")[:, 0].long()


def labelled(images: int, classes: int, *, scale: float = 2.0, seed: int = 0) -> Labelled:
    """Logits, which stand for the images, that are right at about half of the pixels."""
    random = torch.Generator().manual_seed(seed)
    target = blocks(images, classes, 12, 9, seed)
    logits = torch.randn(images, classes, 12, 9, generator=random)
    logits += 1.5 * F.one_hot(target.clamp(min=0), classes).permute(0, 3, 1, 2)
    return Labelled(scale * logits, target)


def scored(data: list[Labelled], classes: int, **options) -> SegmentationScores:
    return evaluate(nn.Identity(), data, num_classes=classes, kind="segmentation", **options)


def one_by_one(data: Labelled) -> list[Labelled]:
    return [Labelled(*pair) for pair in zip(data.images.split(1), data.target.split(1), strict=True)]


@pytest.mark.parametrize(("classes", "scale"), [(2, 0.1), (5, 2.0), (11, 40.0)])
def test_scores_equal_the_definitions(classes: int, scale: float) -> None:
    data = labelled(6, classes, scale=scale)
    scores = scored([data], classes)
    expected = slow_dense_scores(data.images.numpy(), data.target.numpy())
    for name, value in expected.items():
        assert getattr(scores, name) == pytest.approx(value, abs=1e-5, rel=1e-5, nan_ok=True), name
    outlines = zip(data.images.argmax(1).numpy(), data.target.numpy(), strict=True)
    each = [slow_boundary_f(told, truth, tolerance=1) for told, truth in outlines]
    assert scores.boundary_f == pytest.approx(sum(each) / len(each), abs=1e-12)


def test_a_class_that_occurs_nowhere_is_left_out_of_the_mean() -> None:
    data = labelled(4, 5)
    images = torch.cat([data.images, torch.full_like(data.images[:, :1], -1e4)], dim=1)
    scores = scored([Labelled(images, data.target)], 6)
    assert math.isnan(scores.iou[5]) and scores.miou == pytest.approx(sum(scores.iou[:5]) / 5)
    assert scores.miou == pytest.approx(scored([data], 5).miou)


def test_images_one_by_one_score_like_all_at_once() -> None:
    data = labelled(7, 5)
    together, apart = scored([data], 5), scored(one_by_one(data), 5)
    for name, value in together._asdict().items():
        assert getattr(apart, name) == pytest.approx(value, abs=1e-12), name


def test_iou_is_of_the_whole_set_and_not_a_mean_over_images() -> None:
    """One image all of class 0, half found; one with a single pixel of class 1, missed: 72 of 144 and 0 of 73."""
    target = torch.zeros(2, 12, 6, dtype=torch.int64)
    target[1, 0, 0] = 1
    named = torch.zeros_like(target)
    named[0, 6:] = 1
    scores = scored([Labelled(F.one_hot(named, 2).permute(0, 3, 1, 2).float(), target)], 2)
    assert scores.iou == (pytest.approx((36 + 71) / 144), 0.0)


def test_what_is_predicted_at_void_pixels_changes_nothing() -> None:
    data = labelled(4, 5)
    void = (data.target == VOID)[:, None].expand_as(data.images)
    assert void.any()
    for value in (torch.randn_like(data.images), torch.full_like(data.images, math.nan)):
        other = Labelled(torch.where(void, value, data.images), data.target)
        assert scored([other], 5) == scored([data], 5)


def test_void_may_be_any_label() -> None:
    data = labelled(3, 5)
    other = Labelled(data.images, data.target.where(data.target != VOID, 255))
    assert scored([other], 5, ignore_index=255) == scored([data], 5)


@pytest.mark.parametrize("size", [(5, 7), (40, 31)])
def test_scores_are_taken_at_the_size_of_the_masks(size: tuple[int, int]) -> None:
    images = torch.randn(2, 4, 10, 8)
    target = blocks(2, 4, *size)
    scores = scored([Labelled(images, target)], 4)
    resized = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
    assert scores == scored([Labelled(resized, target)], 4)
    pixels = (target != VOID).sum()
    assert scores.pixel_accuracy == pytest.approx(((resized.argmax(1) == target).sum() / pixels).item())


def test_a_window_is_what_the_student_sees() -> None:
    seen = []
    student = nn.Identity()
    student.register_forward_hook(lambda module, args, output: seen.append(tuple(args[0].shape[2:])))
    data = labelled(2, 5)
    windowed = evaluate(student, one_by_one(data), num_classes=5, kind="segmentation", window=(6, 5))
    assert set(seen) == {(6, 5)} and windowed.miou == pytest.approx(scored([data], 5).miou)


@pytest.mark.parametrize("tolerance", [0.0, 0.1, 0.19, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_boundary_f_equals_the_definition(monkeypatch: pytest.MonkeyPatch, tolerance: float, seed: int) -> None:
    """Tolerances of 1, 1.4, 2.7 and 4.2 pixels; with labels in which a class has no outline, or only one side has."""
    monkeypatch.setattr(boundary, "TOLERANCE", tolerance)
    told, truth = blocks(1, 5, 11, 9, seed)[0].clamp(min=0), blocks(1, 5, 11, 9, seed + 100)[0]
    truth = truth.where(torch.rand(11, 9) < 0.9, told)
    found = boundary_f(told, truth, truth != VOID, num_classes=6)
    expected = slow_boundary_f(told.numpy(), truth.numpy(), max(1.0, tolerance * math.hypot(11, 9)))
    assert found.item() == pytest.approx(expected, abs=1e-12) and 0 < expected < 1


def halves(height: int, width: int, left: int) -> Tensor:
    return (torch.arange(width) >= left).long().expand(height, width)


def test_outlines_match_up_to_three_quarters_of_a_percent_of_the_diagonal() -> None:
    """Of 480x360 pixels that is 4.5 pixels."""
    truth = halves(360, 480, 200)
    everywhere = torch.ones_like(truth, dtype=torch.bool)
    found = [boundary_f(halves(360, 480, 200 + n), truth, everywhere, num_classes=2) for n in (0, 4, 5)]
    assert [each.item() for each in found] == [1, 1, 0]


def test_images_without_outlines_have_no_boundary_score() -> None:
    whole, split = torch.zeros(1, 6, 6, dtype=torch.int64), halves(6, 6, 3)[None].clone()

    def told(classes: Tensor) -> Tensor:
        return F.one_hot(classes, 2).permute(0, 3, 1, 2).float()

    plain, right, invented = (Labelled(told(a), b) for a, b in ((whole, whole), (split, split), (split, whole)))
    assert math.isnan(scored([plain], 2).boundary_f)
    assert scored([plain, right], 2).boundary_f == 1
    assert scored([plain, right, invented], 2).boundary_f == 0.5
    split[:, :, 2:4] = VOID  # where the halves met
    assert math.isnan(scored([Labelled(told(split.clamp(min=0)), split)], 2).boundary_f)


def test_logits_that_are_no_numbers_show() -> None:
    data = labelled(4, 5)
    data.images[1] = math.nan
    scores = scored(one_by_one(data), 5)
    assert math.isnan(scores.nll) and math.isnan(scores.ece) and not scores.finite and scores.count == 4


def test_full_confidence_falls_into_the_last_bin() -> None:
    images = torch.tensor([200.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    target = torch.zeros(1, 4, 4, dtype=torch.int64)
    target[0, 0] = 1
    assert scored([Labelled(images, target)], 2).ece == pytest.approx(0.25)


def test_precision_runs_the_student_under_autocast_and_scores_in_float32() -> None:
    seen = []
    student = nn.Conv2d(3, 4, 1)
    student.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    data = [Labelled(torch.randn(1, 3, 6, 6), blocks(1, 4, 6, 6))]
    found = evaluate(student, data, num_classes=4, kind="segmentation", precision=torch.bfloat16)
    assert seen == [torch.bfloat16] and found.finite


def test_both_scores_tell_their_main_number_and_come_back_from_a_record() -> None:
    dense = scored([labelled(2, 5)], 5)
    rows = ClassificationScores(0.9, 1.0, 0.3, 0.02, 10)
    assert (dense.main, rows.main) == (dense.miou, 0.9) and dense.finite and rows.finite
    assert not rows._replace(nll=math.inf).finite
    assert rows.sentence() == "top-1 90.00%  top-5 100.00%  nll 0.3000  ece 0.0200"
    told = SegmentationScores(0.5, 0.75, 0.25, 1.0, 0.125, (0.5, math.nan), 3).sentence()
    assert told == "mIoU 50.00%  pixels 75.00%  boundary F 25.00%  nll 1.0000  ece 0.1250"
    for scores in (dense, rows):
        assert restore_scores(json.loads(json.dumps(scores._asdict()))).sentence() == scores.sentence()


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ([], "no image to evaluate on"),
        ([(torch.zeros(1, 3, 4, 4), torch.full((1, 4, 4), VOID))], "every mask is void"),
        ([(torch.zeros(2, 3, 4, 4), torch.tensor([0, 1]))], r"labels \(2,\) are not labels of pixels, \(b, h, w\)"),
        ([(torch.zeros(1, 5, 4, 4), torch.zeros(1, 4, 4).long())], "scores 5 classes and the labels have 3"),
        ([(torch.zeros(1, 3, 4, 4), torch.full((1, 4, 4), 3))], "labels run from 3 to 3, and .* 0 to 2"),
        ([(torch.zeros(1, 3, 4, 4), torch.full((1, 4, 4), -1))], "labels run from -1 to -1"),
    ],
)
def test_what_cannot_be_scored_is_refused(data: list, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        scored([Labelled(*pair) for pair in data], 3)


def test_an_unknown_kind_and_an_idle_window_are_refused() -> None:
    with pytest.raises(ValueError, match="no task is called 'segment'; did you mean 'segmentation'"):
        evaluate(nn.Identity(), [], num_classes=3, kind="segment")
    with pytest.raises(ValueError, match=r"window=\(4, 4\) has no effect"):
        evaluate(nn.Identity(), [], num_classes=3, window=(4, 4))
