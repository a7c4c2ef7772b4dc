"""Zipf's label smoothing against its slow reference, its ranks, and what each of its parts teaches."""

import pytest
import torch
import torch.nn.functional as F

from helpers.batches import small_batch, small_task
from helpers.methods import names_reached, small_method
from helpers.networks import CLASSES, small_student
from reference import frskd as plain
from reference import zipf as slow
from selfdistill import create_method
from selfdistill.methods.zipf_ls import ZipfLS, enlarged_twice, ranks, votes, zipf


def made(side=16, **settings):
    """The method in float64, and a batch."""
    task = small_task(side=side)
    batch = small_batch(ZipfLS, task, rows=7)
    return small_method(ZipfLS, task, **settings).double(), batch._replace(images=batch.images.double())


@pytest.mark.parametrize("previous_stage", [False, True])
@pytest.mark.parametrize("settings", [{}, {"ranked": "others", "weight": 1.0, "head_weight": 0.5}], ids=str)
def test_zipf_ls_agrees_with_the_reference(settings, previous_stage):
    method, batch = made(previous_stage=previous_stage, **settings)
    with torch.no_grad():
        logits, features = method.taps(batch.images)
    heads = [{name: value.numpy() for name, value in head.state_dict().items()} for head in method.heads]
    maps = [feature.numpy() for feature in features[-len(heads) :]]
    dense = [slow.dense_scores(each, head["weight"], head["bias"]) for each, head in zip(maps, heads, strict=True)]
    enlarged = [  # the map first, where the method enlarges the scores
        slow.dense_scores(slow.twice_as_large(maps[i]), heads[i]["weight"], heads[i]["bias"])
        for i in range(len(heads) - 1)
    ]
    counts, target = slow.vote([*enlarged, dense[-1]]), batch.target.tolist()
    assert {sum(row) for row in counts} == {4 * 4 + previous_stage * 16 * 16}
    heads_loss = sum(plain.cross_entropy(scores.mean(axis=(2, 3)), target) for scores in dense)
    expected = {
        "task": plain.cross_entropy(logits.tolist(), target),
        "zipf": method.weight * slow.zipf_loss(logits.tolist(), counts, target, method.ranked),
        "heads": method.head_weight * heads_loss,
    }
    assert {term: value.item() for term, value in method(batch).losses.items()} == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("among", ["all", "others"])
def test_soft_labels_agree_with_the_reference(among):
    counts = torch.randint(0, 4, (30, 7)).double()  # with many ties
    target = torch.randint(0, 7, (30,))
    ours = zipf(counts, target, among)
    torch.testing.assert_close(ours.sum(dim=1), torch.ones(30, dtype=torch.float64))
    for row, label, own in zip(counts.tolist(), target.tolist(), ours.tolist(), strict=True):
        assert own == pytest.approx(list(slow.soft_label(row, label, among).values()), rel=1e-9)


def test_ranks_are_those_of_sport():
    scores = torch.randint(0, 6, (20, 9)).float()
    more = (scores[:, None, :] > scores[:, :, None]).sum(dim=2)
    assert torch.equal(ranks(scores), 1.0 + more)


def test_ranks_move_with_the_classes():
    scores, order = torch.randint(0, 6, (20, 9)).float(), torch.randperm(9)
    assert torch.equal(ranks(scores[:, order]), ranks(scores)[:, order])


def test_classes_without_a_vote_are_alike():
    counts = torch.tensor([[16.0, 0.0, 0.0, 0.0]])
    assert zipf(counts, torch.tensor([0]), "all").tolist() == zipf(counts, torch.tensor([0]), "others").tolist()
    assert zipf(counts, torch.tensor([1]), "others").tolist() == [[0.5, 0.25, 0.25]]


def test_votes_of_half_precision_scores_are_counted_exactly():
    scores = torch.zeros(1, 2, 30, 30, dtype=torch.bfloat16)
    scores[:, 1, 0] = 1
    assert votes(scores).tolist() == [[870.0, 30.0]]


def test_enlarging_the_scores_equals_enlarging_the_map():
    head, feature = torch.nn.Conv2d(3, 5, 1), torch.randn(2, 3, 4, 6)
    torch.testing.assert_close(enlarged_twice(head(feature)), head(enlarged_twice(feature)))


def reached(method, term):
    """The parts of the method to which a loss term sends a gradient, of the student its stages and classifier."""
    named = names_reached(method, term)
    return {".".join(name.split(".")[:2]) for name in named}


def test_each_term_teaches_whom_it_should():
    method, batch = made(side=8, previous_stage=True)
    losses = method(batch).losses
    stages = {f"student.{name}" for name in ("stem", "stage1", "stage2", "stage3")}
    for term in ("task", "zipf"):
        assert reached(method, losses[term]) == stages | {"student.fc"}, term
    assert reached(method, losses["heads"]) == stages | {"heads.0", "heads.1"}


def test_without_weight_nobody_votes():
    method, batch = made(side=8, weight=0.0)
    assert method(batch).losses.keys() == {"task", "heads"}
    with pytest.raises(ValueError, match="ZipfLS: ranked=others has no effect with weight=0"):
        made(weight=0.0, ranked="others")


def test_mixed_labels_are_refused():
    method, batch = made(side=8)
    with pytest.raises(ValueError, match="ZipfLS needs one class for each image, and these labels are mixed"):
        method(batch._replace(soft_target=F.one_hot(batch.target, CLASSES).double()))


def test_a_student_of_one_map_has_no_previous_stage():
    task = small_task(side=8)
    create_method("zipf_ls", small_student(task), task, taps=["stage3"])
    with pytest.raises(ValueError, match="previous_stage=True needs two feature maps, and this student has one"):
        create_method("zipf_ls", small_student(task), task, taps=["stage3"], previous_stage=True)
