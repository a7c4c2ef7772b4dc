"""Hooks: what they record, and that nothing of them stays on the user's network."""

import copy
import gc
import pickle
import warnings
import weakref

import pytest
import torch
import torchvision
from torch import Tensor, nn

from helpers.batches import small_batch, small_task
from helpers.methods import small_method
from helpers.networks import small_student
from selfdistill import create_method, list_methods
from selfdistill.commands.cards import list_tasks_of
from selfdistill.features.extractor import Taps
from selfdistill.features.hooks import Hooks, Recorder, copy_without_hooks
from selfdistill.methods import find_method

SHAPE = (3, 16, 16)


def traces(network: nn.Module) -> list[dict]:
    """All that a module holds beside weights and submodules, hooks of every kind included, module by module."""
    kept = ("_parameters", "_buffers", "_modules")
    return [{name: value for name, value in vars(m).items() if name not in kept} for m in network.modules()]


def layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(inplace=True), nn.Linear(3, 1))


@pytest.fixture
def no_garbage_collection():
    """Objects go when their last reference goes, or stay."""
    gc.disable()
    yield
    gc.enable()


def test_inputs_and_outputs_are_recorded_during_a_call():
    network, recorder = layers(), Recorder()
    recorder.record_output(network[0], "first")
    recorder.record_input(network[2], "last")
    images = torch.randn(4, 2)
    output, records = recorder.record(network, images)
    assert torch.equal(output, network(images)) and list(records) == ["first", "last"]
    assert torch.equal(records["last"], network[:2](images))


def test_the_input_of_a_module_that_works_in_place_is_copied():
    network, recorder = layers(), Recorder()
    recorder.record_input(network[1], "before")
    _, records = recorder.record(network, torch.randn(64, 2))
    assert records["before"].min() < 0


def test_of_several_calls_of_a_module_the_last_is_recorded():
    network, recorder = nn.Linear(2, 2), Recorder()
    recorder.record_output(network, "output")
    images = torch.randn(1, 2)
    output, records = recorder.record(lambda x: network(network(x)), images)
    assert records["output"] is output


def test_nothing_is_recorded_between_calls_nor_after_a_failed_one():
    network, recorder = layers(), Recorder()
    emitted = []
    recorder.record_output(network[0], "first")
    network[0].register_forward_hook(lambda module, inputs, output: emitted.append(weakref.ref(output)))
    with pytest.raises(RuntimeError):
        recorder.record(network, torch.randn(1, 5))
    with torch.no_grad():
        network(torch.randn(1, 2))
    assert len(emitted) == 1 and emitted[0]() is None


@pytest.mark.parametrize("leave", ["close", "with", "collect"])
def test_hooks_go_when_their_owner_is_closed_left_or_collected(leave, no_garbage_collection):
    network = layers()
    untouched, hooks = traces(copy.deepcopy(network)), Hooks()
    hooks.on_output(network[0], lambda module, inputs, output: output + 1)
    hooks.on_input(network[2], lambda module, inputs: None)
    assert traces(network) != untouched
    if leave == "close":
        hooks.close()
        hooks.close()
    elif leave == "with":
        with hooks:
            pass
    else:
        del hooks
    assert traces(network) == untouched


def test_a_closed_recorder_says_so():
    with Recorder() as recorder:
        recorder.record_output(network := layers(), "output")
    with pytest.raises(RuntimeError, match="removed when this recorder was closed"):
        recorder.record(network, torch.randn(1, 2))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_of_a_network_with_its_recorder_has_hooks_of_its_own(duplicate, no_garbage_collection):
    network, recorder = layers(), Recorder()
    recorder.record_output(network[2], "last")
    twin, twin_recorder = duplicate((network, recorder))
    images = torch.randn(4, 2)
    assert torch.equal(twin_recorder.record(twin, images)[1]["last"], network(images))
    assert twin_recorder.record(network, images)[1] == {}
    del twin_recorder
    assert not twin[2]._forward_hooks
    assert recorder.record(network, images)[1].keys() == {"last"}


def test_a_copy_without_hooks_keeps_those_of_the_user():
    network, hooks = layers(), Hooks()
    hooks.on_output(network[0], lambda module, inputs, output: output + 1)
    network[0].register_forward_hook(double)
    bare, images = copy_without_hooks(network), torch.randn(4, 2)
    assert list(bare[0]._forward_hooks.values()) == [double]
    assert torch.equal(bare[0](images), 2 * nn.functional.linear(images, bare[0].weight, bare[0].bias))
    assert len(network[0]._forward_hooks) == 2


def double(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return 2 * output


# Methods


@pytest.mark.slow
@pytest.mark.parametrize("name", list_methods())
def test_a_deleted_method_leaves_its_student_as_an_untouched_twin(name, no_garbage_collection):
    kind = find_method(name)
    task = small_task(list_tasks_of(kind)[0])
    student = small_student(task)
    untouched = traces(copy.deepcopy(student))
    method = small_method(kind, task, student=student)
    method(small_batch(kind, task)).loss.backward()
    gone = weakref.ref(method)
    del method
    assert gone() is None
    assert traces(student.train()) == untouched
    assert traces(copy.deepcopy(student)) == traces(pickle.loads(pickle.dumps(student))) == untouched


@pytest.mark.slow
@pytest.mark.parametrize("name", list_methods())
def test_a_closed_method_leaves_its_student_as_an_untouched_twin(name):
    kind = find_method(name)
    task = small_task(list_tasks_of(kind)[0])
    student = small_student(task)
    untouched = traces(copy.deepcopy(student))
    method = small_method(kind, task, student=student)
    method.close()
    assert traces(student.train()) == untouched


@pytest.mark.slow
def test_a_torchvision_network_can_be_scripted_after_many_methods():
    student = torchvision.models.resnet18(num_classes=5)
    for name in ["frskd"] * 10 + ["byot"] * 10 + ["manifold_mixup"]:
        create_method(name, student, small_task(side=64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # scripting is on its way out of torch
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(student.eval())
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(scripted(images), student(images))


def test_two_methods_share_a_student_until_one_goes(no_garbage_collection):
    student, task = small_student(small_task()), small_task()
    untouched = traces(copy.deepcopy(student))
    kinds = [find_method("frskd"), find_method("byot")]
    methods = [small_method(kind, task, student=student) for kind in kinds]
    alone = copy.deepcopy(methods[1])
    batch = small_batch(kinds[0], task)
    assert methods[0](batch).loss.isfinite()
    before = len(student.stage1._forward_hooks)
    del methods[0]
    assert 0 < len(student.stage1._forward_hooks) < before
    student.load_state_dict(alone.student.state_dict())
    assert torch.equal(methods[0](batch).loss, alone(batch).loss)
    del methods[0]
    assert traces(student) == untouched


def test_taps_go_with_the_last_reference(no_garbage_collection):
    student = small_student(small_task())
    untouched = traces(copy.deepcopy(student))
    taps = Taps(student, SHAPE)
    taps(torch.randn(2, *SHAPE))
    del taps
    assert traces(student) == untouched
