"""Properties of losses, mixing and feature maps that hold for every shape and value, tried on what Hypothesis draws."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from selfdistill import losses, mixing
from selfdistill.features.extractor import Taps

few = settings(max_examples=25, deadline=None, derandomize=True, database=None)
counts, seeds = st.integers(1, 5), st.integers(0, 2**31)
sizes = st.lists(st.integers(1, 4), max_size=2)  # of positions: none for images, (h, w) for pixels
temperatures = st.floats(0.25, 20)


def normal(*shape, scale=1.0, seed=0):
    """Standard normal numbers in float64, times `scale`."""
    return scale * torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


@few
@given(counts, st.integers(2, 6), sizes, temperatures, st.floats(0.01, 300), seeds)
@pytest.mark.slow
def test_kd_is_a_divergence_whatever_the_scores(rows, classes, positions, temperature, scale, seed):
    own, other = (normal(rows, classes, *positions, scale=scale, seed=seed + k) for k in (0, 1))
    value = losses.kd(own, other, temperature)
    assert value >= -1e-9 and value.isfinite()
    assert losses.kd(own, own, temperature).item() == pytest.approx(0, abs=1e-9)
    torch.testing.assert_close(losses.kd(own + 7, other - 3, temperature), value, rtol=1e-6, atol=1e-8 * scale)
    probabilities = F.softmax(other / temperature, dim=1)
    torch.testing.assert_close(losses.kl(own, probabilities, temperature), value, rtol=1e-6, atol=1e-8 * scale)


@few
@given(counts, st.integers(2, 6), sizes, seeds)
def test_a_mask_counts_its_positions_as_if_there_were_no_others(rows, classes, positions, seed):
    own, other = (normal(rows, classes, *positions, seed=seed + k) for k in (0, 1))
    mask = normal(rows, *positions, seed=seed + 2) > 0
    chosen, taught = (scores.movedim(1, -1)[mask] for scores in (own, other))
    expected = losses.kd(chosen, taught) if mask.any() else torch.zeros((), dtype=torch.float64)
    torch.testing.assert_close(losses.kd(own, other, mask=mask), expected)


@few
@given(counts, st.integers(2, 6), sizes, st.floats(0, 0.9), seeds)
def test_cross_entropy_of_labels_is_that_of_their_probabilities(rows, classes, positions, epsilon, seed):
    logits = normal(rows, classes, *positions, seed=seed)
    target = torch.from_numpy(np.random.default_rng(seed).integers(0, classes, (rows, *positions)))
    soft = F.one_hot(target, classes).double().movedim(-1, 1)
    torch.testing.assert_close(losses.cross_entropy(logits, target), losses.cross_entropy(logits, target, soft))
    smooth = soft * (1 - epsilon) + epsilon / classes
    torch.testing.assert_close(
        losses.smoothed_cross_entropy(logits, target, epsilon), losses.cross_entropy(logits, target, smooth)
    )


@few
@given(counts, counts, counts, st.integers(1, 6), st.integers(1, 6), st.floats(1e-3, 1e3), seeds)
def test_attention_compares_places_alone(rows, channels, others, height, width, scale, seed):
    own = normal(rows, channels, height, width, seed=seed)
    other = normal(rows, others, height, width, seed=seed + 1)
    value = losses.attention_transfer(own, other)
    assert 0 <= value <= 2 / (height * width) + 1e-12  # maps of unit length and no negative numbers
    torch.testing.assert_close(losses.attention_transfer(scale * own.flip(1), -other), value)


@few
@given(
    st.integers(1, 6),
    st.integers(1, 3),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(2, 5),
    st.floats(0.1, 5),
    seeds,
)
def test_mixed_images_and_labels_have_the_same_shares(rows, channels, height, width, classes, alpha, seed):
    """Each image is of one class and shows its number at every pixel, so that images tell what labels must say."""
    target = torch.arange(rows) % classes
    images = F.one_hot(target, classes).double()[:, :, None, None].expand(-1, -1, height, width)[:, :channels]
    for mix in (mixing.mixup, mixing.cutmix):
        torch.manual_seed(seed)
        mixed, soft = mix(images, target, classes, alpha)
        assert mixed.shape == images.shape and (soft >= 0).all()
        torch.testing.assert_close(soft.sum(dim=1), torch.ones(rows))
        torch.testing.assert_close(mixed.mean(dim=(2, 3)), soft[:, :channels].double(), atol=1e-6, rtol=0)


@few
@given(st.integers(1, 5), st.integers(2, 9), st.integers(2, 9), st.floats(0.1, 5), seeds)
def test_pixels_and_their_labels_move_together(rows, height, width, alpha, seed):
    labels = torch.randint(0, 7, (rows, height, width), generator=torch.Generator().manual_seed(seed))
    torch.manual_seed(seed)
    images, moved = mixing.cutmix_masks(labels[:, None].double(), labels, alpha)
    assert torch.equal(images[:, 0].long(), moved)


@pytest.mark.slow
@few
@given(st.integers(1, 3), st.lists(st.tuples(st.integers(1, 5), st.integers(1, 2)), min_size=1, max_size=4), seeds)
def test_taps_of_any_chain_are_what_its_stages_gave(channels, stages, seed):
    torch.manual_seed(seed)
    layers, given = [], channels
    for width, stride in stages:
        layers.append(nn.Sequential(nn.Conv2d(given, width, 3, stride, 1), nn.BatchNorm2d(width), nn.ReLU()))
        given = width
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(given, 3)).eval()
    images = torch.rand(2, channels, 16, 16)
    with torch.no_grad():
        scores = net(images)
        names = [str(i) for i in range(len(layers))]
        logits, maps = Taps(net, (channels, 16, 16), names)(images)
        assert torch.equal(logits, scores)
        for layer, feature in zip(layers, maps, strict=True):
            images = layer(images)
            assert torch.equal(feature, images)
