"""BYOT against the slow reference, and where its gradients go."""

import numpy as np
import pytest
import torch

from helpers.batches import small_batch, small_task
from helpers.methods import names_reached, settled_in_double, small_method
from helpers.networks import small_student
from reference import branches as slow
from selfdistill import create_method
from selfdistill.methods.byot import BYOT

SHALLOW = {"student.stem", "student.stage1", "student.stage2"}
STUDENT = SHALLOW | {"student.stage3", "student.fc"}


def made(**settings):
    """The method in float64, its norms away from where they start, and a batch."""
    task = small_task()
    method = settled_in_double(small_method(BYOT, task, **settings))
    batch = small_batch(BYOT, task, rows=5)
    return method, batch._replace(images=batch.images.double())


def expected_terms(method, batch):
    with torch.no_grad():
        logits, features = method.taps(batch.images)
        exits = [leave(feature) for leave, feature in zip(method.exits, features, strict=False)]
    return slow.byot(
        logits.numpy(),
        features[-1].numpy(),
        [(scores.numpy(), final.numpy()) for scores, final in exits],
        batch.target.tolist(),
        alpha=method.alpha,
        temperature=method.temperature,
        weight=method.feature_weight,
        squared=method.squared_temperature,
    )


@pytest.mark.parametrize(
    ("settings", "gone"),
    [
        ({}, set()),
        ({"attention": False, "temperature": 4.0, "feature_weight": 2.0}, set()),
        ({"squared_temperature": True, "alpha": 0.1}, set()),
        ({"alpha": 0.0}, {"kd"}),
        ({"alpha": 1.0}, {"exits"}),
        ({"feature_weight": 0.0}, {"feature"}),
    ],
    ids=str,
)
def test_it_agrees_with_the_reference(settings, gone):
    method, batch = made(**settings)
    expected = {term: value for term, value in expected_terms(method, batch).items() if term not in gone}
    losses = method(batch).losses
    assert losses.keys() == expected.keys()
    for term, value in losses.items():
        np.testing.assert_allclose(value.item(), expected[term], rtol=1e-9, err_msg=term)


def reached(method, term):
    """The parts of the method to which a loss term sends a gradient: exits, their classifiers, the student's parts."""
    return {
        "exits.fc" if name.startswith("exits") and ".fc." in name else name.rpartition("exits")[1] or stage(name)
        for name in names_reached(method, term)
    }


def stage(name):
    return ".".join(name.split(".")[:2])


@pytest.mark.parametrize(
    ("term", "parts"),
    [
        ("task", STUDENT),
        ("exits", SHALLOW | {"exits", "exits.fc"}),
        ("kd", SHALLOW | {"exits", "exits.fc"}),
        ("feature", SHALLOW | {"exits"}),
    ],
)
def test_the_final_scores_and_the_deepest_map_learn_from_the_labels_alone(term, parts):
    method, batch = made()
    assert reached(method, method(batch).losses[term]) == parts


def test_exits_start_at_the_named_maps():
    task = small_task()
    assert len(create_method("byot", small_student(task), task, taps=["stage2", "stage3"]).exits) == 1
    with pytest.raises(ValueError, match="this student has a single feature map"):
        create_method("byot", small_student(task), task, taps=["stage3"])


@pytest.mark.parametrize("idle", [{"temperature": 2.0}, {"squared_temperature": True}], ids=str)
def test_a_setting_of_a_lesson_that_is_not_given_is_refused(idle):
    with pytest.raises(ValueError, match=f"BYOT: {next(iter(idle))}=.* has no effect with alpha=0"):
        made(alpha=0.0, **idle)
