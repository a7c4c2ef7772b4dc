"""FitNet against its slow reference, its regressors, and what each of its terms teaches."""

import pytest
import torch

from helpers.batches import small_batch, small_task
from helpers.methods import names_reached, settled_in_double, small_method
from helpers.networks import small_student
from reference import fitnet as slow
from reference import frskd as plain
from selfdistill import create_method
from selfdistill.features.extractor import Tap, Taps
from selfdistill.methods.fitnet import FitNet, Regressor, resizing_convolution


def made(**settings):
    """The method in float64, its batch norms away from where they start, and a batch."""
    task = small_task(side=8)
    method = settled_in_double(small_method(FitNet, task, **settings))
    batch = small_batch(FitNet, task, rows=5)
    return method, batch._replace(images=batch.images.double())


STAGE = {"stage1": (8, 8), "stage2": (12, 4), "stage3": (16, 2)}  # channels and side of each


@pytest.mark.parametrize(
    ("settings", "own", "hint"),
    [
        ({}, "stage2", "stage2"),
        ({"level": 1, "weight": 3.0, "rectified": False}, "stage1", "stage1"),
        ({"level": 3}, "stage3", "stage3"),
        ({"taps": ["stage1", "stage3"]}, "stage1", "stage2"),  # twice as large
        ({"taps": ["stage3.conv1", "stage3"]}, "stage3.conv1", "stage2"),  # half as large
        ({"taps": ["stage1"]}, "stage1", "stage3"),  # a kernel of 7x7 takes 8x8 to 2x2
    ],
    ids=str,
)
def test_fitnet_agrees_with_the_reference(settings, own, hint):
    method, batch = made(**settings)
    with torch.no_grad():
        logits, (feature,) = Taps(method.student, (3, 8, 8), [own])(batch.images)
        _, (aim,) = Taps(method.teacher.net, (3, 8, 8), [hint])(batch.images)
    assert aim.shape[1:] == (STAGE[hint][0], STAGE[hint][1], STAGE[hint][1])
    weights = plain.Weights({name: value.numpy() for name, value in method.regressor.state_dict().items()})
    regressed = slow.regressed(feature.numpy(), aim.shape[2:], weights, method.rectified)
    assert weights.all_read()
    expected = {
        "task": plain.cross_entropy(logits.tolist(), batch.target.tolist()),
        "hint": method.weight * slow.hint_loss(regressed, aim.numpy()),
    }
    assert {term: value.item() for term, value in method(batch).losses.items()} == pytest.approx(expected, rel=1e-9)


SIDES = [(8, 8), (8, 4), (4, 8), (9, 4), (7, 8), (2, 8), (14, 14), (1, 4), (32, 7)]


@pytest.mark.parametrize("across", [None, 6])
@pytest.mark.parametrize(("own", "aim"), SIDES)
def test_a_regressor_takes_a_map_of_any_size_to_that_of_any_other(own, aim, across):
    size, teacher_size = (own, across or own), (aim, across or aim)
    regressor = Regressor(Tap("own", 3, size), Tap("aim", 5, teacher_size), rectified=True)
    out = regressor(torch.randn(2, 3, *size), torch.empty(2, 5, *teacher_size))
    assert out.shape == (2, 5, *teacher_size) and out.min() == 0
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in regressor.parameters())


def kernel(own, aim):
    conv = resizing_convolution(Tap("own", 3, own), Tap("aim", 5, aim))
    return type(conv).__name__, conv.kernel_size


def test_kernels_follow_the_two_sizes():
    assert kernel((8, 8), (8, 8)) == ("Conv2d", (1, 1))
    assert kernel((8, 8), (4, 4)) == ("Conv2d", (3, 3))
    assert kernel((4, 4), (8, 8)) == ("ConvTranspose2d", (4, 4))
    assert kernel((8, 7), (7, 4)) == ("Conv2d", (2, 4))
    assert kernel((7, 7), (8, 8)) == ("Conv2d", (1, 1))


def reached(method, term):
    """The parts of the method to which a loss term sends a gradient."""
    named = names_reached(method, term)
    return {".".join(name.split(".")[: 2 if name.startswith("student") else 1]) for name in named}


def test_each_term_teaches_whom_it_should():
    method, batch = made()
    losses = method(batch).losses
    shallow = {"student.stem", "student.stage1", "student.stage2"}
    assert reached(method, losses["task"]) == shallow | {"student.stage3", "student.fc"}
    assert reached(method, losses["hint"]) == shallow | {"regressor"}


@pytest.mark.parametrize(
    ("taps", "level", "width"),
    [
        (["stage1", "stage2", "stage3"], None, 12),
        (["stage1", "stage3"], None, 8),
        (["stage3"], None, 16),
        (["stem", "stage1", "stage2", "stage3"], None, 8),
        (["stem", "stage1", "stage2", "stage3"], 3, 12),
    ],
)
def test_levels_count_from_the_shallowest_and_the_middle_is_the_default(taps, level, width):
    method, _ = made(taps=taps, level=level)
    assert method.regressor.conv.in_channels == width


def test_a_level_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="level=4 was asked for and the student has 3 feature maps"):
        made(level=4)


def test_the_teacher_may_score_other_classes():
    task = small_task(side=8)
    method = create_method("fitnet", small_student(task), task, teacher=small_student(task._replace(num_classes=9)))
    assert method(small_batch(FitNet, task)).loss.isfinite()
