"""Self attention distillation against the slow reference."""

import pytest
import torch
import torch.nn.functional as F

from selfdistill.methods.sad import attention_distance


def test_the_two_reductions_differ_by_the_number_of_positions():
    one, other = torch.rand(2, 3, 8, 8), torch.rand(2, 5, 4, 4)
    torch.testing.assert_close(attention_distance(one, other, "sum"), 64 * attention_distance(one, other, "mean"))


def test_distance_is_zero_between_equal_maps_and_at_most_two():
    feature = torch.rand(2, 3, 4, 4)
    assert attention_distance(feature, feature.flip(1), "sum") < 1e-12
    apart = torch.zeros(2, 1, 4, 4)
    apart[:, :, 0, 0] = 30.0
    assert attention_distance(apart, apart.flip(2), "sum").item() == pytest.approx(2.0)


def test_a_deeper_map_is_compared_at_the_size_of_the_shallower():
    coarse = torch.rand(2, 3, 4, 4)
    energy = F.interpolate(coarse.pow(2).sum(dim=1, keepdim=True), size=(8, 8), mode="bilinear", align_corners=False)
    assert attention_distance(energy.sqrt(), coarse, "sum") < 1e-12
