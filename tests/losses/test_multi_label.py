"""Losses of yes and no for each class, beside torch and a slow loop written from the papers' equations."""

import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from selfdistill import Task, losses
from selfdistill.losses import multi_label_loss
from selfdistill.task.label_loss import MultiLabelLoss, weigh_positives

close = torch.testing.assert_close
WEIGHTS = torch.tensor([0.2, 1.7, 0.9, 3.1], dtype=torch.float64)


@pytest.fixture
def labeled():
    """Scores of four classes, and labels of six images, the first of which shows nothing."""
    target = torch.randint(2, (6, 4))
    target[0] = 0
    return 3 * torch.randn(6, 4, dtype=torch.float64), target


def test_binary_cross_entropy_is_that_of_torch_summed_over_classes(labeled):
    logits, target = labeled
    theirs = F.binary_cross_entropy_with_logits(logits, target.double(), pos_weight=WEIGHTS, reduction="sum")
    close(multi_label_loss(logits, target, class_weights=WEIGHTS), theirs / 6)
    soft = torch.rand(6, 4, dtype=torch.float64)
    theirs = F.binary_cross_entropy_with_logits(logits, soft, reduction="sum")
    close(multi_label_loss(logits, target, soft), theirs / 6)


def test_equal_gammas_make_it_the_focal_loss_of_torchvision(labeled):
    logits, target = labeled
    theirs = sigmoid_focal_loss(logits, target.double(), alpha=-1, gamma=1.5, reduction="sum")
    close(multi_label_loss(logits, target, gamma_positive=1.5, gamma_negative=1.5), theirs / 6)


def slow_asymmetric(logits, target):
    total = 0.0
    for scores, labels in zip(logits.tolist(), target.tolist(), strict=True):
        for z, y in zip(scores, labels, strict=True):
            p = 1 / (1 + math.exp(-z))
            shifted = max(p - 0.05, 0)
            total -= math.log(p) if y else shifted**4 * math.log(1 - shifted)
    return total / len(logits)


def test_the_asymmetric_loss_is_the_papers(labeled):
    logits, target = labeled
    expected = torch.tensor(slow_asymmetric(logits, target), dtype=torch.float64)
    close(MultiLabelLoss("asymmetric")(logits, target), expected)
    easy = torch.full((1, 4), -4.0, requires_grad=True)
    MultiLabelLoss("asymmetric")(easy, torch.zeros(1, 4, dtype=torch.int64)).backward()
    assert easy.grad.abs().max() < 1e-12


def test_smoothing_moves_yes_and_no_towards_each_other(labeled):
    logits, target = labeled
    soft = 0.8 * target.double() + 0.1
    close(multi_label_loss(logits, target, label_smoothing=0.2), multi_label_loss(logits, target, soft))


def hide(target):
    """A third of the labels as not known; all of the first image, and all of the last class."""
    known = torch.rand(target.shape) < 0.67
    known[0], known[:, -1] = False, False
    return known, target.where(known, -100)


@pytest.mark.parametrize("name", ["bce", "focal", "asymmetric"])
def test_labels_not_known_count_for_nothing_and_the_others_for_more(labeled, name):
    logits, target = labeled
    known, partial = hide(target)
    loss = MultiLabelLoss(name, class_weights=WEIGHTS, label_smoothing=0.1)
    costs = [  # one answer at a time: the loss of a whole image of one class
        MultiLabelLoss(name, class_weights=WEIGHTS[k : k + 1], label_smoothing=0.1)(
            logits[i : i + 1, k : k + 1], target[i : i + 1, k : k + 1]
        )
        for i, k in known.nonzero().tolist()
    ]
    logits.requires_grad_()
    value = loss(logits, partial)
    close(value, 4 * torch.stack(costs).mean())
    close(loss(logits, partial, target.double()), value)  # soft labels are left out there too
    value.backward()
    assert not logits.grad[~known].any() and logits.grad[known].all()
    assert loss(logits, torch.full_like(target, -100)) == 0
    assert loss.count(partial, -100) == known.sum()


def test_soft_labels_of_answers_not_known_count_for_nothing(labeled):
    logits, target = labeled
    known, partial = hide(target)
    task, teacher = Task("multilabel", 4, (3, 8, 8)), logits.roll(1, 0)
    parts = [losses.binary_kd(logits[i, k].view(1, 1), teacher[i, k].view(1, 1), 3.0) for i, k in known.nonzero()]
    close(task.distill(logits, teacher, 3.0, task.labeled_mask(partial)), 4 * torch.stack(parts).mean())


def test_soft_labels_compare_two_answers_for_each_class():
    logits, teacher = torch.randn(2, 5, 4, dtype=torch.float64)
    pairs, teacher_pairs = (
        torch.stack([torch.zeros_like(scores), scores], -1).flatten(0, 1) for scores in (logits, teacher)
    )
    close(losses.binary_kd(logits, teacher, 3.0), 4 * losses.kd(pairs, teacher_pairs, 3.0))


def test_the_task_names_its_losses_and_refuses_others():
    for name in ("bce", "focal", "asymmetric"):
        assert Task("multilabel", 4, (3, 8, 8), loss=name).criterion.name == name
    assert Task("multilabel", 4, (3, 8, 8)).has_plain_loss
    for loss, sentence in (
        ("cross_entropy", "task.loss=cross_entropy does not fit task=multilabel; take bce or focal or asymmetric"),
        ("asymetric", "task.loss=asymetric is no loss; did you mean 'asymmetric'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Task("multilabel", 4, (3, 8, 8), loss=loss)
    with pytest.raises(ValueError, match="task.loss=asymmetric does not fit task=classification"):
        Task("classification", 4, (3, 8, 8), loss="asymmetric")


def test_weights_of_positives_even_out_yes_and_no():
    assert weigh_positives([1, 2, 4, 0], 4) == [3, 1, 1, 1]
    few, many = weigh_positives([2, 5000], 100_000, "effective")
    assert 1 < many < 1.01 and 400 < few < 600  # of so many images more add little
