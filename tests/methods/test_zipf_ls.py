"""Zipf's label smoothing against its slow reference, its rank, and what each of its parts teaches."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.methods import method_and_batch
from helpers.networks import CLASSES
from reference import zipf as slow
from selfdistill import Batch, Task, create_method
from selfdistill.methods.zipf_ls import rank, upsample_twice, votes, zipf_labels
from selfdistill.models import build_student


@pytest.mark.parametrize("among", ["all", "others"])
def test_soft_labels_agree_with_the_reference(among):
    counts = torch.randint(0, 4, (30, 7)).double()  # with many ties
    target = torch.randint(0, 7, (30,))
    ours = zipf_labels(counts, target, among)
    torch.testing.assert_close(ours.sum(dim=1), torch.ones(30, dtype=torch.float64))
    for row, label, own in zip(counts.tolist(), target.tolist(), ours.tolist(), strict=True):
        assert own == pytest.approx(list(slow.soft_label(row, label, among).values()), rel=1e-9)


def test_ranks_are_those_of_sport():
    scores = torch.randint(0, 6, (20, 9)).float()
    more = (scores[:, None, :] > scores[:, :, None]).sum(dim=2)
    assert torch.equal(rank(scores), 1.0 + more)


def test_ranks_move_with_the_classes():
    scores, order = torch.randint(0, 6, (20, 9)).float(), torch.randperm(9)
    assert torch.equal(rank(scores[:, order]), rank(scores)[:, order])


def test_classes_without_a_vote_are_alike():
    counts = torch.tensor([[16.0, 0.0, 0.0, 0.0]])
    assert (
        zipf_labels(counts, torch.tensor([0]), "all").tolist()
        == zipf_labels(counts, torch.tensor([0]), "others").tolist()
    )
    assert zipf_labels(counts, torch.tensor([1]), "others").tolist() == [[0.5, 0.25, 0.25]]


def test_votes_of_half_precision_scores_are_counted_exactly():
    scores = torch.zeros(1, 2, 30, 30, dtype=torch.bfloat16)
    scores[:, 1, 0] = 1
    assert votes(scores).tolist() == [[870.0, 30.0]]


def test_enlarging_the_scores_equals_enlarging_the_map():
    head, feature = torch.nn.Conv2d(3, 5, 1), torch.randn(2, 3, 4, 6)
    torch.testing.assert_close(upsample_twice(head(feature)), head(upsample_twice(feature)))


def test_a_students_own_classifier_votes_at_every_position_of_its_map_enlarged_twice():
    student = build_student("cifar:resnet8", num_classes=CLASSES, image_shape=(3, 16, 16)).double()
    method = create_method("zipf_ls", student, Task("classification", CLASSES, (3, 16, 16)), weight=0.7).train()
    assert sum(p.numel() for p in method.parameters()) == sum(p.numel() for p in student.parameters())
    images, target = torch.randn(6, 3, 16, 16, dtype=torch.float64), torch.arange(6) % CLASSES
    step = method(Batch(images, target))

    features = nn.Sequential(*list(student.children())[:-3])(images)
    logits = student.fc(features.mean(dim=(2, 3)))
    enlarged = F.interpolate(features, scale_factor=2, mode="bilinear")
    chosen = student.fc(enlarged.permute(0, 2, 3, 1)).argmax(dim=3).flatten(1)
    assert chosen.shape == (6, 64)
    counts = F.one_hot(chosen, CLASSES).sum(dim=1)
    ranks = 1 + (counts[:, None, :] > counts[:, :, None]).sum(dim=2)
    loss = 0.0
    for row, rank_of, label in zip(logits, ranks, target, strict=True):
        others = [k for k in range(CLASSES) if k != label]
        soft = 1 / rank_of[others].double()
        soft = soft / soft.sum()
        loss = loss + (soft * (soft.log() - row[others].log_softmax(dim=0))).sum() / 6
    torch.testing.assert_close(step.losses["zipf"], 0.7 * loss, rtol=1e-9, atol=0)
    assert step.losses.keys() == {"task", "zipf"} and len(counts.unique()) > 2


@pytest.mark.slow
def test_a_classifier_that_does_not_read_the_mean_of_the_last_map_cannot_vote():
    student = build_student("cifar:mobilenetv2", num_classes=CLASSES, image_shape=(3, 16, 16))
    task = Task("classification", CLASSES, (3, 16, 16))
    with pytest.raises(ValueError, match="MobileNetV2 is no linear layer on the mean of its last map, .* voter=head"):
        create_method("zipf_ls", student, task)
    assert create_method("zipf_ls", student, task, taps=["layer4", "act2"]).classifier == "fc"
    assert create_method("zipf_ls", student, task, voter="head").heads


def test_the_settings_of_the_head_have_no_effect_without_it():
    for setting in ({"head_weight": 0.5}, {"previous_stage": True}):
        with pytest.raises(ValueError, match="has no effect with voter=classifier"):
            method_and_batch("zipf_ls", **setting)
