"""TFD against the slow reference, and who learns from whom."""

import torch
import torch.nn.functional as F

from helpers.replay import replayed
from selfdistill.methods.tfd import map_difference, pool_to_smaller


def test_gradient_of_a_pair_pulls_each_pixel_by_its_share_of_a_window():
    method, batch = replayed("tfd", ([(3, 4, 4), (5, 2, 2)], (4, 4)), alpha=1.0)
    method(batch).losses["inter"].backward()
    shallow, deep = (stage.value.detach() for stage in method.student.stages)
    gap = F.avg_pool2d(shallow, 2) - deep[:, :3]
    expected = (2 * gap / gap.numel() / 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(method.student.stages[0].value.grad, expected)


def test_a_map_that_equals_its_deeper_one_where_they_compare_has_nothing_to_learn():
    deep = torch.rand(2, 5, 3, 3)
    shallow = deep[:, :2].repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert map_difference(shallow, deep).item() < 1e-12
    assert map_difference(shallow, deep.flip(1)) > 1e-3  # the first channels, in their order


def test_maps_meet_at_the_smaller_height_and_the_smaller_width():
    one, other = pool_to_smaller(torch.rand(2, 3, 8, 2), torch.rand(2, 5, 4, 6))
    assert one.shape == (2, 3, 4, 2) and other.shape == (2, 5, 4, 2)
    same = torch.rand(2, 3, 4, 4)
    assert all(torch.equal(each, same) for each in pool_to_smaller(same, same))
