"""FitNet against its slow reference, its regressors, and what each of its terms teaches."""

import functools

import pytest
import torch

from helpers.methods import method_and_batch
from selfdistill.features.extractor import Tap
from selfdistill.methods.fitnet import Regressor, resizing_convolution

made = functools.partial(method_and_batch, "fitnet")


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
