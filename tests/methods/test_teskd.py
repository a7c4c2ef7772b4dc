"""The branches on a top-down pyramid that learn from the student, against the slow reference."""

import numpy as np
import torch

from helpers.expected_terms import weights
from reference import topdown as slow
from selfdistill.methods.teskd import active_difference
from selfdistill.modules.fpn import TopDown


def test_maps_of_equal_size_are_not_resampled():
    pyramid = TopDown([3, 4, 5], 6).double()
    features = [torch.randn(2, channels, 3, 2, dtype=torch.float64) for channels in (3, 4, 5)]
    expected = slow.top_down([each.numpy() for each in features], weights(pyramid), top_lateral=True)
    for ours, theirs in zip(pyramid(features), expected, strict=True):
        np.testing.assert_allclose(ours.detach().numpy(), theirs, rtol=1e-9)


def test_feature_loss_counts_where_either_side_is_active_and_moves_one_of_them():
    own = torch.tensor([[1.0, -1.0, -2.0, 0.0]], requires_grad=True)
    aim = torch.tensor([[-1.0, 3.0, -5.0, 0.0]], requires_grad=True)
    loss = active_difference(own, aim)
    loss.backward()
    assert loss.item() == 4 + 16
    assert own.grad.tolist() == [[4.0, -8.0, 0.0, 0.0]] and aim.grad is None


def test_feature_loss_does_not_depend_on_how_many_images_there_are():
    own, aim = torch.randn(3, 4), torch.randn(3, 4)
    torch.testing.assert_close(active_difference(own, aim), active_difference(own.repeat(2, 1), aim.repeat(2, 1)))
