"""Past and present teachers of the student's branches, against the slow reference, and the memory of the past."""

import io
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from helpers.batches import small_batch, small_task
from helpers.methods import settled_in_double, small_method
from helpers.networks import CLASSES, small_student
from reference import topdown as slow
from reference.frskd import Weights
from selfdistill import create_method
from selfdistill.methods import find_method

NAMES = {
    "first": "label_share",
    "last": "last_label_share",
    "ce": "ce_weight",
    "kd": "kd_weight",
    "backbone": "backbone_weight",
    "branch": "branch_weight",
    "temperature": "temperature",
}


def made(**settings):
    """The method in float64, its norms away from where they start, and a batch."""
    kind, task = find_method("dtskd"), small_task(side=8)
    method = settled_in_double(small_method(kind, task, **({"width": 6} | settings)))
    batch = small_batch(kind, task, rows=6)
    return method, batch._replace(images=batch.images.double())


def some(batch, rows):
    """A batch of these rows alone."""
    return batch._replace(images=batch.images[rows], target=batch.target[rows], index=batch.index[rows])


def weights(module):
    return Weights({name: value.numpy() for name, value in module.state_dict().items()})


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


def agree(losses, expected):
    assert losses.keys() == expected.keys()
    for term, value in losses.items():
        np.testing.assert_allclose(value.item(), expected[term], rtol=1e-9, err_msg=term)


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


@pytest.mark.parametrize("stop_gradient", [False, True])
def test_imitation_moves_the_students_scores_unless_it_is_stopped(stop_gradient):
    method, batch = made(stop_gradient=stop_gradient)
    method(batch).losses["kd"].backward()
    assert all((p.grad is None) == stop_gradient for p in method.student.fc.parameters())
    stages = [method.student.stem, method.student.stage1, method.student.stage2, method.student.stage3]
    assert all(p.grad.count_nonzero() for stage in stages for p in stage.parameters())
    assert all(p.grad.count_nonzero() for p in [*method.top_down.parameters(), *method.classifiers.parameters()])


def test_label_share_falls_along_a_cosine():
    method, batch = made()
    method(batch)
    label = F.one_hot(batch.target, CLASSES).double()
    for progress in (0.0, 0.25, 0.5, 0.99):
        share = 0.45 * (1 + math.cos(math.pi * progress))
        for head, target in enumerate(method.targets(batch, at(progress))):
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


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"index": None}, "DTSKD knows an image by its index in the training set, and batch.index=None; give it"),
        ({"soft_target": torch.full((6, CLASSES), 0.2)}, "these labels are mixed; use mix=none"),
    ],
)
def test_a_batch_that_cannot_be_remembered_is_refused(change, sentence):
    method, batch = made()
    with pytest.raises(ValueError, match=sentence):
        method(batch._replace(**change))


def test_a_task_of_unknown_length_is_refused():
    task = small_task()._replace(num_examples=0)
    with pytest.raises(ValueError, match="task.num_examples=0; give how many there are"):
        create_method("dtskd", small_student(task), task)


@pytest.mark.parametrize("setting", [{"temperature": 2.0}, {"stop_gradient": True}], ids=str)
def test_a_setting_without_effect_is_refused(setting):
    with pytest.raises(ValueError, match=f"{next(iter(setting))}=.* has no effect with kd_weight=0"):
        made(kd_weight=0.0, **setting)
