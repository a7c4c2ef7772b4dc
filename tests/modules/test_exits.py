"""Light exits against the slow reference, and the shapes they end in."""

import numpy as np
import pytest
import torch

from helpers.batches import small_task
from helpers.networks import CLASSES, small_student
from reference import branches as slow
from reference.frskd import Weights
from selfdistill.features.extractor import Taps
from selfdistill.modules.exits import Gate, SeparableExit, count_halvings, separable_exits, shallow_levels


def shifted(module):
    """The module in float64 and training mode, its norms and biases away from where they start."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return module.double().train()


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize(("number", "size"), [(0, (4, 4)), (1, (5, 8)), (2, (9, 6))])
def test_an_exit_agrees_with_the_reference(number, size, attention):
    leave = shifted(SeparableExit(4, 9, number, CLASSES, attention=attention))
    feature = torch.randn(3, 4, *size, dtype=torch.float64)
    weights = Weights({name: value.numpy() for name, value in leave.state_dict().items()})
    logits, final = leave(feature)
    expected_logits, expected = slow.separable_exit(feature.numpy(), weights, halvings=number, attention=attention)
    assert weights.all_read()
    np.testing.assert_allclose(final.detach().numpy(), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(logits.detach().numpy(), expected_logits, rtol=1e-9)


def test_widths_are_evenly_spaced_in_their_ratio():
    leave = SeparableExit(64, 512, 3, CLASSES)
    assert [block[0][5].out_channels for block in leave.blocks] == [128, 256, 512]
    assert leave.fc.in_features == 512


def test_a_gate_only_weakens_and_keeps_the_shape():
    feature = torch.randn(3, 4, 7, 5)
    share = shifted(Gate(4))(feature.double()) / feature
    assert share.shape == feature.shape and ((share > 0) & (share < 1)).all()


@pytest.mark.parametrize("side", [16, 13])
def test_exits_end_in_the_channels_and_about_the_size_of_the_deepest_map(side):
    task = small_task(side=side)
    taps = Taps(small_student(task), task.image_shape)
    exits = separable_exits(taps, CLASSES, attention=True)
    _, features = taps(torch.randn(2, 3, side, side))
    assert len(exits) == len(features) - 1
    for leave, feature in zip(exits, features, strict=False):
        logits, final = leave(feature)
        assert logits.shape == (2, CLASSES) and final.shape == features[-1].shape


@pytest.mark.parametrize(
    ("size", "smallest", "number"),
    [
        ((32, 32), (4, 4), 3),
        ((15, 15), (3, 3), 2),
        ((28, 56), (7, 14), 2),
        ((14, 14), (14, 14), 0),
        ((3, 3), (2, 2), 1),
    ],
)
def test_halvings_come_closest_to_the_smaller_size(size, smallest, number):
    assert count_halvings(size, smallest) == number


def test_a_student_with_a_single_map_is_refused():
    task = small_task()
    with pytest.raises(ValueError, match="branches start at shallow feature maps, and this student has a single"):
        shallow_levels(Taps(small_student(task), task.image_shape, ["stage3"]))
