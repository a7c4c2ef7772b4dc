"""Mixup, CutMix, rotations and joint labels."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from reference import frskd as slow
from selfdistill import mixing

MIXES = [mixing.mixup, mixing.cutmix]
every_mix = pytest.mark.parametrize("mix", MIXES)
TARGET = torch.arange(6)


def marked(rows=6, height=12, width=10):
    """Images that hold their own row number everywhere."""
    return torch.arange(rows, dtype=torch.float64).view(-1, 1, 1, 1).expand(rows, 3, height, width).clone()


@every_mix
def test_inputs_are_left_as_they_were(mix):
    images, target = torch.randn(6, 3, 8, 8), TARGET.clone()
    before = images.clone()
    for _ in range(5):
        mixed, _ = mix(images, target, 6, 1.0)
        mixed.zero_()
    assert torch.equal(images, before) and torch.equal(target, TARGET)


@every_mix
def test_labels_are_distributions(mix):
    for _ in range(20):
        _, soft = mix(marked(), TARGET, 8, 1.0)
        assert soft.shape == (6, 8) and soft.min() >= 0
        torch.testing.assert_close(soft.sum(dim=1), torch.ones(6))


@every_mix
def test_labels_follow_the_pixels(mix):
    shares = set()
    for _ in range(50):
        mixed, soft = mix(marked(), TARGET, 6, 1.0)
        torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), soft.double() @ TARGET.double(), rtol=1e-6, atol=1e-6)
        shares.add(soft.max().item())
    assert len(shares) > 10


@every_mix
def test_one_weight_holds_for_the_whole_batch_and_each_image_gives_as_much_as_it_takes(mix):
    for _ in range(20):
        _, soft = mix(marked(), TARGET, 6, 1.0)
        own = soft.diagonal()
        moved = own < 1 - 1e-6
        assert moved.sum() != 1
        if moved.any():
            torch.testing.assert_close(own[moved], own[moved][:1].expand(int(moved.sum())))
        torch.testing.assert_close(soft.sum(dim=0), torch.ones(6))


@every_mix
def test_mixed_labels_may_be_mixed_again(mix):
    once = mix(marked(), TARGET, 6, 1.0)
    torch.manual_seed(7)
    _, again = mix(once[0], TARGET, 6, 1.0, once[1])
    torch.manual_seed(7)
    _, of_hard = mix(once[0], TARGET, 6, 1.0)
    torch.testing.assert_close(again, of_hard @ once[1])


@every_mix
def test_same_seed_mixes_alike(mix):
    results = []
    for _ in range(2):
        torch.manual_seed(5)
        results.append(mix(torch.ones(6, 3, 8, 8).cumsum(0), TARGET, 6, 0.4))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


def test_small_alpha_mixes_little_and_large_alpha_halves():
    def mean_distance_from_even(alpha):
        weights = [mixing.mixup(marked(6, 2, 2), TARGET, 6, alpha)[1].diagonal() for _ in range(40)]
        return torch.cat([(own[own < 1 - 1e-6] - 0.5).abs() for own in weights]).mean()

    assert mean_distance_from_even(0.05) > 0.4
    assert 0.15 < mean_distance_from_even(1.0) < 0.35  # Beta(1, 1) is uniform
    assert mean_distance_from_even(100.0) < 0.1


def test_cutmix_box_of_an_even_weight_is_half_the_image_before_clipping():
    shares = []
    for _ in range(40):
        mixed, _ = mixing.cutmix(marked(6, 40, 40), TARGET, 6, 1000.0)
        shares.append((mixed != marked(6, 40, 40)).double().mean(dim=(1, 2, 3)).max().item())
    assert 0.4 < max(shares) < 0.52  # 28 pixels of 40 along either side, where nothing is clipped
    assert min(shares) > 0.12  # and never less than a quarter of that, in a corner


def test_mixup_is_a_straight_line_between_two_images():
    images = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    mixed, soft = mixing.mixup(images, TARGET, 6, 1.0)
    torch.testing.assert_close(mixed, torch.einsum("bk,kchw->bchw", soft.double(), images), rtol=1e-6, atol=1e-6)


def test_cutmix_pastes_one_box_at_the_same_place_of_every_image():
    seen = 0
    for _ in range(50):
        mixed, soft = mixing.cutmix(marked(), TARGET, 6, 1.0)
        changed = mixed != marked()
        moved = changed.flatten(1).any(dim=1)
        if not moved.any():
            continue
        seen += 1
        place = changed[moved][0, 0]
        assert torch.equal(changed[moved], place.expand_as(changed[moved]))
        rows, columns = place.any(dim=1).nonzero().flatten(), place.any(dim=0).nonzero().flatten()
        box = place[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert box.all() and box.sum() == place.sum()
        pasted = 1 - soft.diagonal()[moved][0]
        torch.testing.assert_close(pasted.item(), place.double().mean().item(), rtol=1e-5, atol=1e-6)
    assert seen > 30


def test_cutmix_box_is_clipped_at_the_border():
    touching = 0
    for _ in range(60):
        mixed, _ = mixing.cutmix(marked(), TARGET, 6, 1.0)
        changed = (mixed != marked()).flatten(0, 1).any(dim=0)
        if changed.any():
            rows, columns = changed.any(dim=1).nonzero().flatten(), changed.any(dim=0).nonzero().flatten()
            touching += bool(len(rows) / 12 < 0.8 * len(columns) / 10 or len(columns) / 10 < 0.8 * len(rows) / 12)
    assert touching > 5  # an unclipped box has the image's own proportions


def labelled(rows=6, height=12, width=10):
    """Images that hold the labels of their pixels, void among them, and these labels."""
    target = torch.randint(5, (rows, height, width))
    target[:, 4] = -100
    return target[:, None].double().expand(rows, 3, height, width).clone(), target


def test_cutmix_of_masks_keeps_each_label_at_its_pixel():
    moved = 0
    for _ in range(20):
        images, target = labelled()
        before = images.clone(), target.clone()
        mixed, labels = mixing.cutmix_masks(images, target, 1.0)
        assert labels.dtype == torch.int64 and torch.equal(mixed, labels[:, None].double().expand_as(mixed))
        assert torch.equal(images, before[0]) and torch.equal(target, before[1])
        moved += not torch.equal(labels, target)
        mixed.zero_(), labels.zero_()
        assert torch.equal(images, before[0]) and torch.equal(target, before[1])
    assert moved > 10


def test_cutmix_of_masks_pastes_what_cutmix_pastes():
    images, target = labelled()
    for seed in range(10):
        torch.manual_seed(seed)
        mixed, _ = mixing.cutmix_masks(images, target, 0.7)
        torch.manual_seed(seed)
        assert torch.equal(mixed, mixing.cutmix(images, TARGET, 6, 0.7)[0])


def test_four_rotations_are_the_identity():
    start = torch.randn(2, 3, 5, 5)
    turned = start
    for _ in range(4):
        turned = mixing.rotations(turned)[1::4]
    assert torch.equal(turned, start)


def test_upright_rows_are_the_images():
    images = torch.randn(2, 3, 5, 5)
    assert torch.equal(mixing.rotations(images)[:: mixing.ROTATIONS], images)


def test_rotations_agree_with_the_reference():
    images = torch.randn(3, 2, 4, 4)
    assert np.array_equal(mixing.rotations(images).numpy(), slow.turned(images.numpy()))


def test_rotations_of_oblong_images_are_refused():
    with pytest.raises((ValueError, RuntimeError)):
        mixing.rotations(torch.randn(2, 3, 4, 5))


def test_joint_labels_name_class_and_turn_of_the_same_row():
    images, target = torch.randn(3, 1, 4, 4), torch.tensor([2, 0, 1])
    rows, labels = mixing.rotations(images), mixing.joint_labels(target)
    for row, label in zip(rows, labels.tolist(), strict=True):
        origin = images[(target == label // 4).nonzero().item()]
        assert torch.equal(torch.rot90(origin, label % 4, dims=(1, 2)), row)


def test_aggregate_agrees_with_the_reference():
    joint = torch.randn(12, 20, dtype=torch.float64)
    np.testing.assert_allclose(mixing.aggregate(joint).numpy(), slow.aggregated(joint.numpy()), rtol=1e-12)


def test_aggregate_of_perfect_joint_scores_names_the_class():
    target = torch.tensor([2, 0, 1])
    perfect = F.one_hot(mixing.joint_labels(target), 12).double()
    assert torch.equal(mixing.aggregate(perfect), F.one_hot(target, 3).double())
