"""Every method on every task that it knows: cases, and short trainings."""

import copy
import functools

import pytest
import torch

from helpers.batches import small_batch, small_task
from helpers.methods import small_method
from selfdistill import list_methods
from selfdistill.commands.cards import list_tasks_of
from selfdistill.methods import find_method

METHODS = list_methods()
CASES = [(name, kind) for name in METHODS for kind in list_tasks_of(find_method(name))]
# An image of several classes differs by the task's two losses alone, so few methods are tested with it at length.
FEWER_CASES = [case for case in CASES if case[1] != "multilabel" or case[0] in ("baseline", "frskd", "dlb")]
FIRST = {name: kind for name, kind in reversed(CASES)}  # the fast set sees each method on one task
every_case = pytest.mark.parametrize(
    ("name", "kind"),
    [pytest.param(*case, marks=[] if FIRST[case[0]] == case[1] else [pytest.mark.slow]) for case in FEWER_CASES],
)


def made(name, kind="classification", **options):
    """The method and a batch for it; both the same at every call."""
    if options:
        return small_method(find_method(name), small_task(kind), **options), small_batch(
            find_method(name), small_task(kind)
        )
    return copy.deepcopy(built(name, kind))


@functools.cache
def built(name, kind):
    """What `made` copies: taps and branches need dry runs of the student, and a copy none."""
    return build(name, kind)


def build(name, kind, **options):
    found, task = find_method(name), small_task(kind)
    return small_method(found, task, **options), small_batch(found, task)


@functools.cache
def first_step(name, kind):
    """A method after one step with its gradients, the batch, and what the step gave: for tests that only read."""
    method, batch = made(name, kind)
    step = method(batch, torch.tensor(0.5))
    step.loss.backward()
    return method, batch, step


def train(method, batch, steps, optimizer=None):
    """The step results of `steps`, a range; the random state of each depends on its number alone, as in `fit`."""
    optimizer = optimizer or sgd(method)
    done = []
    for number in steps:
        torch.manual_seed(number)
        step = method(batch, torch.tensor(number / 25))
        optimizer.zero_grad()
        step.loss.backward()
        optimizer.step()
        method.after_step()
        done.append(step)
    return done


def sgd(method):
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    return torch.optim.SGD(trained, lr=0.05, momentum=0.9)
