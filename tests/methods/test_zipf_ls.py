"""Zipf's label smoothing against its slow reference, its rank, and what each of its parts teaches."""

import pytest
import torch

from reference import zipf as slow
from selfdistill.methods.zipf_ls import rank, upsample_twice, votes, zipf_labels


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
