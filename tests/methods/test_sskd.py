"""SSKD and its teacher against the slow reference, and where their gradients go."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from helpers.batches import small_batch, small_task
from helpers.methods import names_reached, small_method
from helpers.networks import SmallResNet, small_student
from reference import sskd as slow
from reference.frskd import turned
from selfdistill import create_method, distributed
from selfdistill.methods import find_method
from selfdistill.methods.sskd import selective_kd, taught_rows
from selfdistill.methods.sskd_teacher import everyones


def made(name="sskd", *, rows=6, **settings):
    """The method in float64 and a batch."""
    kind, task = find_method(name), small_task(side=8)
    method = small_method(kind, task, **settings).double()
    batch = small_batch(kind, task, rows=rows)
    return method, batch._replace(images=batch.images.double())


def agree(losses, expected):
    assert losses.keys() == expected.keys()
    for term, value in losses.items():
        np.testing.assert_allclose(value.item(), expected[term], rtol=1e-9, err_msg=term)


@torch.no_grad()
def scored(method, batch):
    """Scores and embeddings of the turned images, as nested lists."""
    logits, features = method.taps(torch.from_numpy(turned(batch.images.numpy())))
    return logits.tolist(), method.head(features[-1].mean(dim=(2, 3))).tolist()


@pytest.mark.parametrize("settings", [{}, {"joint": False}, {"temperature": 0.2}], ids=str)
def test_the_teachers_terms_agree_with_the_reference(settings):
    method, batch = made("sskd_teacher", **settings)
    logits, embeddings = scored(method, batch)
    expected = {"contrast": slow.contrast(embeddings, method.temperature)}
    if method.joint:
        expected["task"] = slow.cross_entropy(slow.upright(logits), batch.target.tolist())
    agree(method(batch).losses, expected)


OTHERS = {
    "task_weight": 0.3,
    "kd_weight": 0.7,
    "transformation_weight": 1.5,
    "similarity_weight": 4.0,
    "temperature": 2.0,
    "similarity_temperature": 0.2,
}


@pytest.mark.parametrize("shares", [(1.0, 0.75), (0.5, 1.0), (0.25, 0.5), (0.0, 0.0)])
@pytest.mark.parametrize("settings", [{}, OTHERS], ids=["defaults", "others"])
def test_the_students_terms_agree_with_the_reference(settings, shares):
    given = dict(zip(("transformation_share", "similarity_share"), shares, strict=True))
    method, batch = made(**settings, **given)
    every = {name: getattr(method, name) for name in method.hyperparameters()}
    own, teacher = scored(method, batch), scored(method.teacher.net, batch)
    agree(method(batch).losses, slow.student_terms(*own, *teacher, batch.target.tolist(), every))


def test_a_batch_of_one_image_is_no_trouble():
    method, batch = made(rows=1)
    step = method(batch)
    step.loss.backward()
    assert step.loss.isfinite() and step.losses["similarity"].abs() < 1e-12  # there is one image to choose from


@pytest.mark.parametrize("weight", ["kd_weight", "transformation_weight"])
def test_a_term_that_weighs_nothing_is_not_there(weight):
    method, batch = made(**{weight: 0.0})
    left = {"task", "kd", "transformation", "similarity"} - {weight.removesuffix("_weight")}
    assert method(batch).losses.keys() == left


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.75, 1.0])
def test_the_rows_that_teach_are_the_right_ones_and_the_least_wrong(share):
    scores, own = torch.randn(23, 6, dtype=torch.float64), torch.randint(6, (23,))
    kept = taught_rows(scores, own, share)
    assert sorted(slow.taught(scores.tolist(), own.tolist(), share)) == kept.nonzero().flatten().tolist()
    assert kept[scores.argmax(dim=1) == own].all()


def test_rows_that_do_not_teach_get_no_gradient():
    teacher, own = torch.tensor([[3.0, 2.0, 1.0]] * 4), torch.tensor([0, 1, 2, 2])
    logits = torch.randn(4, 3, requires_grad=True)
    selective_kd(logits, teacher, own, 0.4, temperature=4.0).backward()
    assert logits.grad.abs().sum(dim=1).bool().tolist() == [True, True, False, False]


def reached(method, term):
    """The submodules of the method to which a loss term sends a gradient."""
    return {name.split(".")[0] for name in names_reached(method, term)}


@pytest.mark.parametrize(
    ("name", "routes"),
    [
        ("sskd_teacher", {"task": {"student"}, "contrast": {"head"}}),
        (
            "sskd",
            {
                **{term: {"student"} for term in ("task", "kd", "transformation")},
                "similarity": {"student", "head"},
            },
        ),
    ],
)
def test_gradients_go_where_the_paper_sends_them(name, routes):
    method, batch = made(name)
    assert {term: reached(method, value) for term, value in method(batch).losses.items()} == routes


def test_a_frozen_network_stays_as_it_came_while_its_head_learns():
    method, batch = made("sskd_teacher", joint=False)
    before = copy.deepcopy(method.student.state_dict())
    method.train()
    assert not any(module.training for module in method.student.modules()) and method.head.training
    step = method(batch)
    assert step.losses.keys() == {"contrast"}
    step.loss.backward()
    assert all(parameter.grad is None for parameter in method.student.parameters())
    assert all(parameter.grad.count_nonzero() for parameter in method.head.parameters())
    assert all(torch.equal(value, before[key]) for key, value in method.student.state_dict().items())


def test_a_student_learns_from_a_trained_teacher():
    teacher, batch = made("sskd_teacher")
    trained(teacher, batch)
    student, task = small_student(teacher.task).double(), teacher.task
    method = create_method("sskd", student, task, teacher=teacher).double().train()
    first = F.cross_entropy(method(batch).logits, batch.target)
    trained(method, batch)
    assert F.cross_entropy(method(batch).logits, batch.target) < 0.6 * first


def trained(method, batch):
    parameters = [parameter for parameter in method.parameters() if parameter.requires_grad]
    for _ in range(25):
        for parameter, gradient in zip(parameters, torch.autograd.grad(method(batch).loss, parameters), strict=True):
            parameter.data -= 0.1 * gradient


def test_the_batch_of_all_processes_counts_and_own_rows_learn(monkeypatch):
    rows, world = torch.randn(4, 3, requires_grad=True), 2
    monkeypatch.setattr(distributed, "several", lambda: True)
    monkeypatch.setattr(distributed, "gather_rows", lambda own: torch.cat([own.detach() + 1, own.detach()]))
    monkeypatch.setattr(distributed, "own_rows", lambda gathered: gathered[4:])
    gathered = everyones(rows)
    assert torch.equal(gathered, torch.cat([rows + 1, rows]))
    gathered.sum().backward()
    assert torch.equal(rows.grad, torch.full_like(rows, world))


@pytest.mark.parametrize("name", ["sskd_teacher", "sskd"])
def test_images_that_are_not_square_are_refused(name):
    task = small_task(side=8)._replace(image_shape=(3, 8, 10))
    teacher = made("sskd_teacher")[0].float() if name == "sskd" else None
    with pytest.raises(ValueError, match="rotations need square images, and these are 8 x 10"):
        create_method(name, small_student(task), task, teacher=teacher)


def test_a_teacher_of_other_classes_is_refused():
    task = small_task(side=8)._replace(num_classes=7)
    with pytest.raises(ValueError, match="the teacher scores 5 classes and the task has 7"):
        create_method("sskd", SmallResNet(7), task, teacher=made("sskd_teacher")[0].float())


@pytest.mark.parametrize(
    ("settings", "idle"),
    [
        ({"transformation_weight": 0.0, "transformation_share": 0.5}, "transformation_share=0.5"),
        ({"transformation_weight": 0.0, "kd_weight": 0.0, "temperature": 2.0}, "temperature=2.0"),
    ],
)
def test_a_setting_without_effect_is_refused(settings, idle):
    with pytest.raises(ValueError, match=f"SSKD: {idle} has no effect"):
        made(**settings)
