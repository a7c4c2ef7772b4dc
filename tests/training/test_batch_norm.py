"""Batch norms that see too few values per channel are found and told of."""

import pytest
import torch
from torch import nn

from selfdistill.modules.blocks import BatchNorm
from selfdistill.training.batch_norm import BatchNormSizes, describe_few_values


def counted(network, *shapes):
    with BatchNormSizes(network) as norms:
        for part, shape in zip(network.children(), shapes, strict=True):
            part(torch.randn(shape))
    return norms.values


def test_the_smallest_count_of_each_part_is_kept():
    student = nn.Sequential(nn.BatchNorm2d(3), nn.MaxPool2d(2), nn.BatchNorm2d(3))
    network = nn.ModuleDict({"student": student, "head": nn.BatchNorm1d(3)})
    assert counted(network, (2, 3, 4, 6), (5, 3)) == {"student": 2 * 2 * 3, "head": 5}


def test_batch_norms_that_are_called_as_functions_count():
    network = nn.ModuleDict({"self_teacher": BatchNorm(3)})
    with BatchNormSizes(network) as norms:
        network["self_teacher"](torch.randn(4, 3, 1, 1), torch.ones(()))
    assert norms.values == {"self_teacher": 4}


def test_batch_norms_at_rest_and_those_of_others_do_not_count():
    network = nn.ModuleDict({"teacher": nn.BatchNorm2d(3).eval(), "student": nn.GroupNorm(1, 3)})
    assert counted(network, (2, 3, 1, 1), (2, 3, 1, 1)) == {}
    with BatchNormSizes(network) as norms:
        nn.BatchNorm2d(3)(torch.randn(2, 3, 1, 1))
    assert norms.values == {}


@pytest.mark.parametrize(("size", "smallest", "told"), [(16, 16, None), (8, 8, 8), (16, 2, 2)])
def test_the_smallest_batch_of_an_epoch_decides(size, smallest, told):
    sentence = describe_few_values({"student": 4 * size, "self_teacher": size}, size, smallest)
    if told is None:
        assert sentence is None
    else:
        assert f"average over {told} values per channel in a batch of {smallest} images" in sentence
        assert ("student and self_teacher" in sentence) == (told == 2)
