"""Attention maps as arrays and pictures."""

import numpy as np
import pytest
import torch

from selfdistill import losses
from selfdistill.report.attention import STOPS, color, compute_attention, compute_distance, draw_attention


def test_maps_are_read_as_the_loss_reads_them():
    feature, other = torch.randn(2, 5, 3, 4), torch.randn(2, 7, 3, 4)
    attention = compute_attention(feature.numpy())
    np.testing.assert_allclose(attention.reshape(2, 12), losses.attention(feature).numpy(), rtol=1e-5)
    distances = [compute_distance(a, b) for a, b in zip(attention, compute_attention(other.numpy()), strict=True)]
    assert np.mean(distances) / 12 == pytest.approx(losses.attention_transfer(feature, other).item(), rel=1e-4)


def test_a_map_of_zeros_attends_to_nothing_and_distances_go_from_0_to_2():
    assert not compute_attention(np.zeros((1, 2, 3, 3))).any()
    left, right = np.eye(2)[:1], np.eye(2)[1:]
    assert compute_distance(left, left) == 0 and compute_distance(left, right) == 2


def test_brighter_is_more():
    brightness = color(np.linspace(0, 1, 50)[None]).astype(float) @ [0.299, 0.587, 0.114]
    assert (np.diff(brightness[0]) > 0).all()
    assert (color(np.array([[-1.0, 2.0]])) == STOPS[[0, -1]].round()).all()


def test_a_picture_has_the_images_size_and_shows_where_the_map_is_high():
    image = np.full((20, 30, 3), 100, np.uint8)
    attention = np.zeros((2, 3), np.float32)
    attention[1, 2] = 0.5
    picture = draw_attention(image, attention)
    assert picture.shape == (20, 30, 3) and picture.dtype == np.uint8
    assert picture[-1, -1].sum() == picture.sum(axis=2).max() > picture[0, 0].sum()
    assert len(np.unique(draw_attention(image, np.full((2, 3), 0.4)).reshape(-1, 3), axis=0)) == 1  # equal everywhere
