"""What is frozen of a student does not move, and learns like the rest once it is freed."""

import pytest
import torch

from helpers.runs import recipe
from selfdistill.build import build
from selfdistill.training.callbacks import Callback
from selfdistill.training.freezing import find_frozen
from selfdistill.training.loop import fit

EARLY = ["conv1", "bn1", "layer1"]


class Watch(Callback):
    """Keeps the student's state after each step, and whether its first batch norm trains."""

    def __init__(self):
        self.states, self.modes = [], []

    def on_step(self, state):
        student = state.method.student
        self.states.append({name: value.detach().clone() for name, value in student.state_dict().items()})
        self.modes.append(student.bn1.training)


def train(tmp_path, **student):
    watch = Watch()
    experiment = build(recipe(tmp_path, student={"name": "cifar:resnet8", **student}, method="frskd"))
    first = {name: value.detach().clone() for name, value in experiment.method.student.state_dict().items()}
    fit(experiment, callbacks=[watch])
    return first, watch, experiment.method.student


def moved(before, after):
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def test_what_is_frozen_keeps_its_weights_and_statistics_until_it_is_freed(tmp_path):
    first, watch, student = train(tmp_path, freeze=EARLY, unfreeze_at=0.5)
    early = {name for name in first if name.split(".")[0] in EARLY}
    assert watch.modes == [False] * 5 + [True] * 5
    assert not moved(first, watch.states[4]) & early and "fc.weight" in moved(first, watch.states[0])
    assert moved(watch.states[4], watch.states[5]) >= early
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_what_is_frozen_for_good_gets_no_gradients_and_is_given_back_whole(tmp_path):
    first, watch, student = train(tmp_path, freeze=["all", "-fc"])
    assert moved(first, watch.states[-1]) == {"fc.weight", "fc.bias"} and not any(watch.modes)
    assert all(parameter.requires_grad for parameter in student.parameters()) and student.bn1.training


def test_names_are_checked_before_anything_is_trained(tmp_path):
    student = build(recipe(tmp_path)).method.student
    assert find_frozen(student, ["f*.bias"]) == ["fc.bias"] and find_frozen(student, ["fc"]) == ["fc.weight", "fc.bias"]
    with pytest.raises(ValueError, match="student.freeze=layr1: the student has no such part; did you mean 'layer1'"):
        find_frozen(student, ["layr1"])
    with pytest.raises(ValueError, match=r"leaves nothing of the student to train.*student.freeze=\[all,-fc\]"):
        find_frozen(student, ["all"])
