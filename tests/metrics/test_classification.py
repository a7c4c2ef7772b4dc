"""The scores against a slow re-derivation, and what evaluation leaves behind: nothing."""

import math
from typing import NamedTuple

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn

from reference.scores import slow_scores
from selfdistill import evaluate
from selfdistill.metrics.evaluation import restore_scores


class Labelled(NamedTuple):
    images: Tensor
    target: Tensor


class Shown(nn.Module):
    """Its logits are the images themselves, in the type asked for."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).to(self.dtype)


def labelled(rows: int, classes: int, *, scale: float = 3.0, seed: int = 0) -> Labelled:
    random = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(rows, classes, 1, 1, generator=random)
    guesses = logits.flatten(1).argmax(1)
    others = torch.randint(classes, (rows,), generator=random)
    return Labelled(logits, torch.where(torch.rand(rows, generator=random) < 0.5, guesses, others))


def cut(data: Labelled, size: int) -> list[Labelled]:
    return [Labelled(*parts) for parts in zip(data.images.split(size), data.target.split(size), strict=True)]


@pytest.mark.parametrize("classes", [2, 4, 5, 12])
@pytest.mark.parametrize("scale", [0.1, 3.0, 40.0])
def test_scores_equal_the_definitions(classes: int, scale: float) -> None:
    data = labelled(203, classes, scale=scale)
    scores = evaluate(Shown(), cut(data, 32), num_classes=classes)
    expected = slow_scores(data.images.flatten(1).numpy(), data.target.numpy())
    assert scores.count == 203
    for name, value in expected.items():
        assert getattr(scores, name) == pytest.approx(value, abs=1e-5, rel=1e-5), name


def test_scores_do_not_depend_on_how_rows_are_batched() -> None:
    data = labelled(50, 10)
    whole = evaluate(Shown(), [data], num_classes=10)
    assert evaluate(Shown(), cut(data, 7), num_classes=10) == pytest.approx(whole, abs=1e-6)


def test_full_confidence_falls_into_the_last_bin() -> None:
    """Half of the rows are certain and wrong, half all but certain and right: one bin, whose error is about a half."""
    images = torch.tensor([[100.0, 0.0]] * 4 + [[4.0, 0.0]] * 4).view(8, 2, 1, 1)
    target = torch.tensor([1] * 4 + [0] * 4)
    expected = (1 + 1 / (1 + math.exp(-4))) / 2 - 0.5
    assert evaluate(Shown(), [Labelled(images, target)], num_classes=2).ece == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_scored_in_float32(dtype: torch.dtype) -> None:
    data = labelled(64, 10)
    rounded = Labelled(data.images.to(dtype).float(), data.target)
    assert evaluate(Shown(dtype), [data], num_classes=10) == evaluate(Shown(), [rounded], num_classes=10)


def test_precision_runs_the_student_under_autocast() -> None:
    seen = []
    student = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    student[1].register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    data = [Labelled(torch.randn(4, 3, 2, 2), torch.tensor([0, 1, 2, 0]))]
    for precision in (None, torch.float32, torch.bfloat16):
        evaluate(student, data, num_classes=3, precision=precision)
    assert seen == [torch.float32, torch.float32, torch.bfloat16]


def test_logits_that_are_no_numbers_show_in_nll_and_ece() -> None:
    data = labelled(20, 4)
    data.images[3] = float("nan")
    scores = evaluate(Shown(), cut(data, 5), num_classes=4)
    assert math.isnan(scores.nll) and math.isnan(scores.ece)
    assert scores.count == 20


def test_every_submodules_mode_is_restored() -> None:
    student = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(nn.Dropout(), nn.Flatten()), nn.Linear(12, 3))
    student.train()
    student[1].eval()  # a frozen part of a student that trains
    before = [part.training for part in student.modules()]
    statistics = student[0].running_mean.clone()
    seen = []
    student[1][0].register_forward_hook(lambda module, *_: seen.append(module.training))
    student[0].register_forward_hook(lambda module, *_: seen.append(module.training))
    evaluate(student, [Labelled(torch.randn(4, 3, 2, 2), torch.tensor([0, 1, 2, 0]))], num_classes=3)
    assert seen == [False, False]
    assert [part.training for part in student.modules()] == before
    assert torch.equal(student[0].running_mean, statistics)


def test_no_gradient_is_recorded() -> None:
    student = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    recorded = []
    student.register_forward_hook(lambda module, args, output: recorded.append(output.requires_grad))
    evaluate(student, [Labelled(torch.randn(2, 3, 2, 2), torch.tensor([0, 1]))], num_classes=3)
    assert recorded == [False]


@pytest.mark.parametrize(
    ("batches", "sentence"),
    [
        ([], "no image to evaluate on"),
        ([Labelled(torch.zeros(2, 5, 1, 1), torch.tensor([0, 1]))], r"shape \(2, 5\), and 2 labels of 4 classes"),
        ([Labelled(torch.zeros(2, 4, 1, 1), torch.tensor([0, 4]))], "labels run from 0 to 4, and .* 0 to 3"),
        ([Labelled(torch.zeros(2, 4, 1, 1), torch.tensor([-1, 2]))], "labels run from -1 to 2"),
    ],
)
def test_what_cannot_be_scored_is_refused(batches: list[Labelled], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        evaluate(Shown(), batches, num_classes=4)


def test_of_imbalanced_classes_there_is_balanced_accuracy_too() -> None:
    target = torch.tensor([0] * 50 + [1] + [3] * 9)  # class 2 has no image
    logits = torch.randn(60, 4) + 2 * torch.nn.functional.one_hot(target, 4)
    logits[:, 2] = -9
    scores = evaluate(Shown(), cut(Labelled(logits[..., None, None], target), 7), num_classes=4)
    assert scores.balanced_accuracy == pytest.approx(balanced_accuracy_score(target, logits.argmax(dim=1)))
    assert f"balanced {scores.balanced_accuracy:.2%}" in scores.sentence()
    even = evaluate(Shown(), [Labelled(logits[48:52, :, None, None], target[[48, 48, 50, 50]])], num_classes=4)
    assert even.balanced_accuracy is None and "balanced" not in even.sentence()


def test_scores_of_older_records_lack_balanced_accuracy() -> None:
    older = {"top1": 0.9, "top5": 1.0, "nll": 0.3, "ece": 0.02, "count": 10}
    assert restore_scores(older).top1 == 0.9 and restore_scores(older).balanced_accuracy is None
    newer = restore_scores({**older, "balanced_accuracy": 0.5})
    assert newer.balanced_accuracy == 0.5 and restore_scores(newer._asdict()) == newer
