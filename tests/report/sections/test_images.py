"""Which images changed: counted again by hand."""

import torch

from selfdistill.metrics.outcomes import ClassOutcomes, MultiLabelOutcomes, PixelOutcomes
from selfdistill.report.evidence import Arm, ArmRun
from selfdistill.report.sections.answers import (
    describe_change,
    describe_label_change,
    find_changes,
    find_label_changes,
    find_mask_changes,
)
from selfdistill.report.sections.images import _select

LABELS = [0, 1, 2, 0]


def arm(name, number, *seeds):
    runs = [ArmRun(None, seed, {}, [], outcomes=outcomes) for seed, outcomes in enumerate(seeds)]
    return Arm(name, number, runs, None)


def answers(predicted, nll):
    values = torch.tensor(predicted), torch.full((4,), 0.75), torch.tensor(nll)
    return ClassOutcomes(torch.tensor(LABELS), *values, None)


BASELINE = arm("baseline", 0, answers([0, 0, 2, 1], [0.1, 2.0, 0.1, 1.0]), answers([0, 1, 1, 1], [0.1, 0.5, 1.0, 1.0]))
OTHER = arm("frskd", 1, answers([0, 1, 1, 0], [0.1, 0.1, 3.0, 0.2]), answers([0, 1, 1, 2], [0.1, 0.1, 3.0, 0.9]))


def test_changes_are_the_images_on_which_another_number_of_seeds_is_right():
    changes = {change.index: (change.before, change.after) for change in find_changes(OTHER, BASELINE, [0, 1])}
    assert changes == {1: (0.5, 1.0), 2: (0.5, 0.0), 3: (0.0, 0.5)}


def test_better_and_worse_are_not_exchanged():
    (_, better, more), (_, worse, fewer) = _select(find_changes(OTHER, BASELINE, [0, 1]), 5)
    assert [change.index for change in better] == [1, 3] and more == 2
    assert [change.index for change in worse] == [2] and fewer == 1


def test_a_change_is_told_with_the_answers_and_the_probability_of_the_label():
    changes = find_changes(OTHER, BASELINE, [0, 1])
    change = next(change for change in changes if change.index == 3)
    label, before, after, probability = describe_change(change, OTHER, BASELINE, [0, 1], ["cat", "dog", "hen"])
    assert label == "cat"
    assert before == "baseline: 0 of 2 right, else dog (75%)"
    assert after == "frskd: 1 of 2 right, else hen (75%)"
    assert probability == "probability of its label: 37% → 61%"  # exp(-1); mean of exp(-0.2) and exp(-0.9)


def test_of_one_seed_the_answer_is_told():
    one, other = (Arm(which.name, which.number, which.runs[:1], None) for which in (BASELINE, OTHER))
    change = next(change for change in find_changes(other, one, [0]) if change.index == 1)
    assert describe_change(change, other, one, [0], "abc")[1:3] == ["baseline: a (75%)", "frskd: b (75%)"]


def test_masks_are_compared_by_the_mean_iou_of_the_classes_in_the_image():
    def pixels(right):
        right = torch.tensor([right])
        labeled = torch.tensor([[6, 2, 0]])
        predicted = right + (labeled - right).roll(1, dims=1)  # what is not right goes to the next class
        rest = torch.zeros(1, 15)
        return PixelOutcomes(right, predicted, labeled, torch.zeros(3, 3), torch.zeros(1), rest, rest, rest)

    before, after = arm("baseline", 0, pixels([3, 2, 0])), arm("byot", 1, pixels([6, 2, 0]))
    (change,) = find_mask_changes(after, before, [0])
    assert change.after == 1.0
    assert abs(change.before - (3 / 6 + 2 / 5) / 2) < 1e-9


def several(shown, said, nll):
    shown, rest = torch.tensor(shown), torch.zeros(len(shown), 15)
    outcomes = MultiLabelOutcomes(shown, None, torch.tensor(nll), rest, rest, rest)
    return {"outcomes": outcomes, "said": torch.tensor(said) > 0}


def test_of_several_labels_the_answers_that_were_missed_and_added_are_told():
    shown = [[1, 1, 0], [0, -1, 0]]
    before = [several(shown, [[1, 0, 0], [0, 0, 1]], [0.5, 0.3]), several(shown, [[1, 0, 1], [0, 0, 0]], [0.5, 0.1])]
    after = [several(shown, [[1, 1, 0], [0, 0, 1]], [0.1, 0.9]), several(shown, [[1, 0, 0], [1, 0, 0]], [0.1, 0.9])]
    one, other = (
        Arm(name, number, [ArmRun(None, seed, {}, [], **run) for seed, run in enumerate(runs)], None)
        for number, (name, runs) in enumerate({"baseline": before, "frskd": after}.items())
    )
    changes = {change.index: change for change in find_label_changes(other, one, [0, 1])}
    assert [round(6 * share) for share in (changes[0].before, changes[0].after)] == [3, 5]
    assert [round(6 * share) for share in (changes[1].before, changes[1].after)] == [3, 2]
    assert describe_label_change(changes[0], other, one, [0, 1], "abc") == [
        "a, b",
        "baseline: misses b (2 of 2); adds c (1 of 2)",
        "frskd: misses b (1 of 2)",
        "mean probability of its answers: 61% → 90%",
    ]
    words = describe_label_change(changes[1], other, one, [0], "abc")
    assert words[:3] == ["none, 1 not known", "baseline: adds c", "frskd: adds c"]
