"""DKS against the slow reference, and where its gradients go."""

import numpy as np
import pytest
import torch

from helpers.batches import small_batch, small_task
from helpers.methods import small_method
from helpers.networks import CLASSES, small_student
from reference import branches as slow
from selfdistill import create_method
from selfdistill.methods.dks import DKS


def made(**settings):
    """The method and a batch, in float64."""
    task = small_task()
    method, batch = small_method(DKS, task, **settings).double(), small_batch(DKS, task, rows=5)
    return method, batch._replace(images=batch.images.double())


@pytest.mark.parametrize("settings", [{}, {"weight": 0.5, "temperature": 2.0}, {"weight": 0.0}], ids=str)
def test_it_agrees_with_the_reference(settings):
    method, batch = made(**settings)
    with torch.no_grad():
        logits, features = method.taps(batch.images)
        heads = [head(feature).numpy() for head, feature in zip(method.heads, features, strict=False)]
    target = batch.target.tolist()
    expected = slow.dks(logits.numpy(), heads, target, weight=method.weight, temperature=method.temperature)
    if not method.weight:
        del expected["synergy"]
    losses = method(batch).losses
    assert losses.keys() == expected.keys()
    for term, value in losses.items():
        np.testing.assert_allclose(value.item(), expected[term], rtol=1e-9, err_msg=term)


def test_each_classifier_learns_from_all_others_as_constants():
    method, _ = made()
    classifiers = [torch.randn(4, CLASSES, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    method.synergy(classifiers).backward()
    p = [scores.detach().softmax(dim=1) for scores in classifiers]
    for own, scores in zip(p, classifiers, strict=True):
        torch.testing.assert_close(scores.grad, sum(own - other for other in p) / 4)  # its own part is 0


def test_classifiers_that_agree_have_nothing_to_teach():
    method, _ = made()
    scores = torch.randn(4, CLASSES, dtype=torch.float64)
    assert method.synergy([scores, scores + 3.0]).abs() < 1e-12


def test_every_shallow_map_has_a_classifier_of_its_own():
    task = small_task()
    assert len(made()[0].heads) == 2
    assert len(create_method("dks", small_student(task), task, taps=["stage2", "stage3"]).heads) == 1
    with pytest.raises(ValueError, match="this student has a single feature map"):
        create_method("dks", small_student(task), task, taps=["stage3"])


def test_a_temperature_without_synergy_is_refused():
    with pytest.raises(ValueError, match=r"DKS: temperature=2.0 has no effect with weight=0"):
        made(weight=0.0, temperature=2.0)
