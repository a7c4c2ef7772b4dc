"""Past and present teachers of the student's branches, against the slow reference, and the memory of the past."""

import functools
import io
import math

import pytest
import torch
import torch.nn.functional as F

from helpers.expected_terms import weights
from helpers.methods import agree, method_and_batch
from helpers.networks import CLASSES
from reference import topdown as slow

NAMES = {
    "first": "label_share",
    "last": "last_label_share",
    "ce": "ce_weight",
    "kd": "kd_weight",
    "backbone": "backbone_weight",
    "branch": "branch_weight",
    "temperature": "temperature",
}


made = functools.partial(method_and_batch, "dtskd", width=6, rows=6)


def some(batch, rows):
    """A batch of these rows alone."""
    return batch._replace(images=batch.images[rows], target=batch.target[rows], index=batch.index[rows])


def heads(method, batch):
    """The scores of the student and its branches."""
    with torch.no_grad():
        logits, features = method.taps(batch.images)
    pooled = [each.numpy().mean(axis=(2, 3), keepdims=True) for each in features]
    joining, classifiers = weights(method.top_down), weights(method.classifiers)
    joined = slow.top_down(pooled, joining, top_lateral=False)
    branches = [slow.linear(each[:, :, 0, 0], classifiers / str(i)) for i, each in enumerate(joined)]
    assert joining.all_read() and classifiers.all_read()
    return [logits.numpy(), *branches]


def expected_terms(method, batch, history, progress):
    settings = {ours: getattr(method, name) for ours, name in NAMES.items()}
    rows, target = batch.index.tolist(), batch.target.tolist()
    return slow.dtskd(heads(method, batch), rows, target, history, progress, **settings)


def at(progress):
    return torch.tensor(progress, dtype=torch.float64)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"stop_gradient": True, "width": 3},
        {"ce_weight": 0.7, "kd_weight": 0.4, "backbone_weight": 2.0, "branch_weight": 0.5, "temperature": 2.0},
        {"label_share": 0.6, "last_label_share": 0.3},
    ],
    ids=str,
)
def test_dtskd_agrees_with_the_reference_over_two_epochs(settings):
    method, batch = made(**settings)
    history = slow.History()
    for progress, rows in [(0.0, [0, 1, 2, 3]), (0.2, [4, 5]), (0.5, [5, 0, 3]), (0.8, [2, 4, 1, 3, 0])]:
        part = some(batch, rows)
        expected = expected_terms(method, part, history, progress)
        agree(method(part, at(progress)).losses, expected)
        with torch.no_grad():
            method.student.fc.weight.mul_(1.5)  # else the past would equal the present


def test_history_holds_what_each_head_said_of_each_image_last():
    method, batch = made()
    method(some(batch, [4, 1]))
    method(some(batch, [1, 5]))
    first, second = heads(method, some(batch, [4, 1])), heads(method, some(batch, [1, 5]))
    assert method.history.shape == (32, 3, CLASSES)
    for head in range(3):
        for row, scores in ((4, first[head][0]), (1, second[head][0]), (5, second[head][1])):
            torch.testing.assert_close(method.history[row, head], torch.tensor(scores).softmax(dim=0))
    assert not method.history[[0, 2, 3]].any() and not method.history[6:].any()
    assert not method.history.requires_grad


def test_an_image_not_seen_yet_has_its_label_for_a_past():
    method, batch = made()
    step = method(batch, at(0.9))
    plain = method.task.loss(step.logits, batch.target)
    torch.testing.assert_close(step.losses["task"], 0.2 * 3.0 * plain)


def test_the_past_alone_teaches_at_the_end_and_rows_do_not_mix():
    method, batch = made()
    said = method(batch).logits.detach().softmax(dim=1)
    order = torch.randperm(6)
    step = method(some(batch, order), at(1.0))
    torch.testing.assert_close(
        step.losses["task"], 0.6 * method.task.loss(step.logits, batch.target[order], said[order])
    )


def test_label_share_falls_along_a_cosine():
    method, batch = made()
    method(batch)
    label = F.one_hot(batch.target, CLASSES).double()
    for progress in (0.0, 0.25, 0.5, 0.99):
        share = 0.45 * (1 + math.cos(math.pi * progress))
        for head, target in enumerate(method.soften_targets(batch, at(progress))):
            torch.testing.assert_close(target, share * label + (1 - share) * method.history[batch.index, head])


def test_imitation_that_weighs_nothing_is_not_there():
    method, batch = made(kd_weight=0.0)
    assert method(batch).losses.keys() == {"task", "branches"}


def test_memory_is_saved_and_resumed():
    method, batch = made()
    method(some(batch, [0, 3]))
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    resumed, _ = made()
    resumed(batch)
    resumed.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert torch.equal(resumed.history, method.history)
    assert method(batch, at(0.7)).loss.item() == resumed(batch, at(0.7)).loss.item()
