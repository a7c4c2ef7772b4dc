"""The loss of a task with its settings, and class weights from counts."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight

from selfdistill import Task, losses
from selfdistill.task.label_loss import LabelLoss, weigh_classes

COUNTS = [500, 10, 40]


def test_automatic_weights_are_the_balanced_ones_of_scikit_learn():
    labels = np.repeat(range(3), COUNTS)
    np.testing.assert_allclose(weigh_classes(COUNTS), compute_class_weight("balanced", classes=np.arange(3), y=labels))


def test_effective_weights_are_inverse_effective_numbers_with_mean_1_over_labels():
    for beta in (0.0, 0.9, 0.999):
        inverse = (1 - beta) / (1 - beta ** np.array(COUNTS))
        expected = inverse * sum(COUNTS) / (inverse * COUNTS).sum()
        np.testing.assert_allclose(weigh_classes(COUNTS, "effective", beta=beta), expected)


def test_a_class_without_labels_weighs_1_and_is_not_counted():
    for rule in ("auto", "effective"):
        assert weigh_classes([30, 0, 10], rule)[1] == 1
        np.testing.assert_allclose(np.delete(weigh_classes([30, 0, 10], rule), 1), weigh_classes([30, 10], rule))


@pytest.mark.parametrize("name", LabelLoss.NAMES)
def test_a_task_computes_the_loss_that_it_is_told(name):
    task = Task("segmentation", 3, (3, 4, 4), loss=name, class_weights=[1, 2, 5], label_smoothing=0.1, gamma=1.5)
    logits, target = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randint(3, (2, 4, 4))
    settings = {"class_weights": torch.tensor([1.0, 2, 5], dtype=torch.float64), "label_smoothing": 0.1}
    functions = {"bce": losses.binary_cross_entropy, "focal": lambda *a, **k: losses.focal_loss(*a, 1.5, **k)}
    expected = functions.get(name, losses.cross_entropy)(logits, target, **settings)
    if name.startswith("dice"):
        expected = expected + losses.dice(logits, target, class_weights=settings["class_weights"])
    torch.testing.assert_close(task.loss(logits, target), expected)


def test_the_default_is_the_plain_function():
    assert Task("classification", 3, (3, 4, 4)).criterion is losses.cross_entropy
    assert Task("classification", 3, (3, 4, 4), loss="cross_entropy").criterion is losses.cross_entropy


def own_loss(logits, target, soft_target, ignore_index):
    return logits.mean()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"loss": "focl"}, "task.loss=focl is no loss; did you mean 'focal'"),
        ({"loss": "dice+cross_entropy"}, "does not fit task=classification; take cross_entropy or focal or bce"),
        ({"class_weights": [1, 2]}, "there are 2 class weights, and the task has 3 classes"),
        ({"class_weights": [1, -1, 1]}, "must be numbers from 0 on"),
        ({"class_weights": [0, 0, 0]}, "not all 0"),
        ({"label_smoothing": 1.0}, "must be from 0 to below 1"),
        ({"loss": "focal", "gamma": -1.0}, "must be a number from 0 on"),
        ({"loss": own_loss, "label_smoothing": 0.1}, "a loss of your own takes no class_weights"),
        ({"loss": own_loss, "criterion": own_loss}, "criterion is the older name of loss"),
    ],
)
def test_what_does_not_fit_is_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Task("classification", 3, (3, 4, 4), **settings)
