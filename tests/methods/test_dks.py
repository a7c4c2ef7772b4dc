"""DKS against the slow reference, and where its gradients go."""

import functools

import torch

from helpers.methods import method_and_batch
from helpers.networks import CLASSES

made = functools.partial(method_and_batch, "dks")


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
