"""Supervised losses beside independent code, in float64."""

import pytest
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.losses import DiceLoss
from torchvision.ops import sigmoid_focal_loss

from selfdistill.losses import binary_cross_entropy, cross_entropy, dice, focal_loss, smoothed_cross_entropy

VOID = -100
close = torch.testing.assert_close


@pytest.fixture(params=[(), (3, 5)], ids=["images", "pixels"])
def labeled(request):
    """Scores of four classes, labels with two void ones, soft labels, and class weights."""
    positions = request.param
    target = torch.randint(4, (6, *positions))
    target.view(-1)[:2] = VOID
    soft = torch.randn(6, 4, *positions, dtype=torch.float64).softmax(dim=1)
    logits = 3 * torch.randn(6, 4, *positions, dtype=torch.float64)
    return logits, target, soft, torch.tensor([0.2, 1.7, 0.9, 3.1], dtype=torch.float64)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_weighted_cross_entropy_is_that_of_torch(labeled, smoothing):
    logits, target, soft, weights = labeled
    settings = {"class_weights": weights, "label_smoothing": smoothing}
    for labels, soft_target in ((target, None), (soft, soft)):
        theirs = F.cross_entropy(logits, labels, weight=weights, label_smoothing=smoothing)
        close(cross_entropy(logits, target, soft_target, VOID, **settings), theirs)
        close(
            smoothed_cross_entropy(logits, target, smoothing, "all", VOID, soft_target, class_weights=weights), theirs
        )


def test_without_a_label_a_loss_is_zero_and_so_are_its_gradients(labeled):
    logits, target, _, weights = labeled
    for loss in (cross_entropy, focal_loss, binary_cross_entropy, *[dice] * (logits.ndim == 4)):
        scores = logits.clone().requires_grad_()
        value = loss(scores, torch.full_like(target, VOID), class_weights=weights)
        value.backward()
        assert value == 0 and not scores.grad.any()


@pytest.mark.parametrize("loss", [cross_entropy, focal_loss, binary_cross_entropy])
def test_equal_weights_change_nothing_and_certain_soft_labels_are_labels(labeled, loss):
    logits, target, _, weights = labeled
    close(loss(logits, target, class_weights=3 * torch.ones_like(weights)), loss(logits, target))
    target = target.clamp(min=0)
    certain = F.one_hot(target, 4).movedim(-1, 1).double()
    close(loss(logits, target, soft_target=certain, label_smoothing=0.2), loss(logits, target, label_smoothing=0.2))


def test_the_focal_loss_of_two_classes_is_that_of_one_sigmoid():
    scores, target = torch.randn(20, dtype=torch.float64), torch.randint(2, (20,))
    logits = torch.stack([torch.zeros_like(scores), scores], dim=1)
    for gamma in (0.0, 0.5, 2.0):
        theirs = sigmoid_focal_loss(scores, target.double(), alpha=-1, gamma=gamma, reduction="mean")
        close(focal_loss(logits, target, gamma), theirs)


def test_the_weighted_focal_loss_divides_by_the_weights():
    logits, target = torch.randn(9, 3, dtype=torch.float64), torch.randint(3, (9,))
    weights = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)
    single = torch.stack([focal_loss(logits[i : i + 1], target[i : i + 1], 1.5) for i in range(9)])
    expected = (weights[target] * single).sum() / weights[target].sum()
    close(focal_loss(logits, target, 1.5, class_weights=weights), expected)


def test_binary_cross_entropy_is_that_of_torch(labeled):
    logits, target, soft, weights = labeled
    rows, labels = logits.movedim(1, -1)[target != VOID], target[target != VOID]
    smooth = 0.9 * F.one_hot(labels, 4).double() + 0.1 / 4
    close(binary_cross_entropy(logits, target), F.binary_cross_entropy_with_logits(rows, F.one_hot(labels, 4).double()))
    close(binary_cross_entropy(logits, target, label_smoothing=0.1), F.binary_cross_entropy_with_logits(rows, smooth))
    close(binary_cross_entropy(logits, target, soft), F.binary_cross_entropy_with_logits(logits, soft))
    single = F.binary_cross_entropy_with_logits(rows, F.one_hot(labels, 4).double(), reduction="none").mean(dim=1)
    expected = (weights[labels] * single).sum() / weights[labels].sum()
    close(binary_cross_entropy(logits, target, class_weights=weights), expected)


def test_dice_is_the_mean_over_images_and_their_classes():
    logits = torch.randn(3, 4, 6, 6, dtype=torch.float64)
    target = torch.randint(4, (3, 6, 6))
    target[1][target[1] == 3] = 0  # an image of three classes
    theirs = DiceLoss("multiclass", smooth=0.0, eps=1e-12)  # counts classes that the mask lacks as 0
    single = [theirs(logits[i : i + 1], target[i : i + 1]) * 4 / target[i].unique().numel() for i in range(3)]
    close(dice(logits, target), torch.stack(single).mean())


def test_void_pixels_count_for_nothing_in_dice_and_images_count_as_their_labels_do():
    logits, target = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randint(3, (2, 4, 4))
    target[1, 1:] = VOID
    upper = dice(logits[1:, :, :1], target[1:, :1])
    close(dice(logits[1:], target[1:]), upper)
    close(dice(logits, target), (16 * dice(logits[:1], target[:1]) + 4 * upper) / 20)
    weights = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    share = [weights[part[part != VOID]].sum() for part in target]
    expected = (share[0] * dice(logits[:1], target[:1]) + share[1] * upper) / sum(share)
    close(dice(logits, target, class_weights=weights), expected)
