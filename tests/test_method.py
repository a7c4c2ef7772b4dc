"""Methods in a loop of one's own: what they are made of, what they are given, and what must follow a step."""

import copy
import gc
import pickle
import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.optim.optimizer import _global_optimizer_post_hooks

from helpers.batches import small_batch, small_task
from helpers.methods import small_method
from helpers.networks import CLASSES, small_student
from selfdistill import Batch, Method, Step, Task, create_method, evaluate
from selfdistill.methods.baseline import Baseline
from selfdistill.methods.mean_teacher import MeanTeacher
from selfdistill.models import build_student

TASKS = ["classification", "segmentation"]
every_task = pytest.mark.parametrize("kind", TASKS)


class Bare(Method):
    """A user's method that forgets the names of its losses."""

    def forward(self, batch, progress=0.0):
        return self.task.loss(self.student(batch.images), batch.target)


class Vector(Method):
    """A user's method whose loss is not a number."""

    def forward(self, batch, progress=0.0):
        logits = self.student(batch.images)
        return Step({"task": logits.sum(dim=1)}, logits)


def baseline(kind="classification", **settings):
    task = Task(kind, CLASSES, (3, 16, 16), **settings)
    return create_method("baseline", small_student(task), task).train(), small_batch(Baseline, task)


# what a method is made of


def test_a_method_is_named_or_is_a_class(untyped):
    task = small_task()
    assert type(create_method(Baseline, small_student(task), task)) is Baseline
    with pytest.raises(ValueError, match=r"a method is a name, .* or a subclass of sd.Method, not 3"):
        create_method(3, small_student(task), task)
    with pytest.raises(ValueError, match="or a subclass of sd.Method, not <class"):
        create_method(nn.Linear, small_student(task), task)


@pytest.mark.parametrize(
    ("student", "sentence"),
    [
        ("timm:resnet18", r"takes a network, not its name; give sd.build_student\('timm:resnet18'"),
        (nn.Flatten, "the student of Baseline must be a network, and Flatten is a class; call it first"),
        (lambda images: images, "the student of Baseline must be a torch.nn.Module, not a function"),
    ],
)
def test_a_student_that_is_no_network_is_refused(student, sentence, untyped):
    with pytest.raises(ValueError, match=sentence):
        create_method("baseline", student, small_task())


@pytest.mark.slow
def test_a_student_that_is_compiled_or_wrapped_is_refused_by_every_method():
    task = small_task()
    for student, sentence in (
        (torch.compile(small_student(task)), "is compiled .*; give the plain network, compile the method"),
        (
            nn.DataParallel(small_student(task)),
            "DataParallel wraps a network .*; give the plain network, wrap the method",
        ),
        (baseline()[0], "the student of Baseline must be a plain network, and this is a Baseline"),
    ):
        with pytest.raises(ValueError, match=sentence):
            create_method("baseline", student, task)


def test_a_task_is_made_by_its_name(untyped):
    student = small_student(small_task())
    with pytest.raises(ValueError, match=r'Baseline needs a task, as in sd.Task\("classification", .* not a str'):
        create_method("baseline", student, "classification")
    with pytest.raises(ValueError, match="no task is called 'clasification'; did you mean 'classification'"):
        Task("clasification", CLASSES, (3, 16, 16))
    assert isinstance(create_method("baseline", student, small_task()).task, Task)
    with pytest.raises(ValueError, match="a task has no num_clases; it has kind, num_classes, "):
        small_task().replace(num_clases=3)


def test_a_result_that_is_no_step_of_named_terms_is_refused(untyped):
    task = small_task()
    for method, sentence in [
        (Bare, r"Bare.forward returned a Tensor; return Step\(losses, logits\)"),
        (Vector, r"the loss term 'task' of Vector is a tensor \(8,\), and must be a scalar"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            create_method(method, small_student(task), task)(small_batch(Baseline, task))


# one rule for the length of training


@every_task
def test_create_method_follows_the_rule_of_the_command_line(kind):
    task = small_task(kind)
    short, long = (create_method("frskd", small_student(task), task, total_steps=n) for n in (19_999, 20_000))
    assert (short.warmup, short.ramp, short.temperature) == (0, 0, 4)
    assert create_method("frskd", small_student(task), task, total_steps=600).ramp == 1
    assert (long.warmup, long.ramp) == {"classification": (0, 0), "segmentation": (2 / 3, 1 / 3)}[kind]
    given = create_method("frskd", small_student(task), task, total_steps=100, ramp=0.25)
    assert given.ramp == 0.25


def test_without_a_length_the_papers_weights_are_taken_and_said():
    task = small_task()
    with pytest.warns(
        UserWarning, match=r"FRSKD takes levels=None ramp=0.0, .* levels=1 ramp=1.0 for fewer; .*total_steps=n"
    ):
        assert create_method("frskd", small_student(task), task).ramp == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        create_method("frskd", small_student(task), task, ramp=0.0, levels=None)
        create_method("baseline", small_student(task), task)
    with pytest.raises(ValueError, match="total_steps=0 is how many optimizer steps"):
        create_method("frskd", small_student(task), task, total_steps=0)


# what a method is given


@pytest.mark.parametrize("progress", [-0.1, 1.5, 3, float("nan"), torch.tensor(2.0)])
def test_a_progress_that_is_no_share_is_refused(progress, untyped):
    method, batch = baseline()
    with pytest.raises(ValueError, match=r"is the share of training done, between 0 and 1; give step / total_steps"):
        method(batch, progress)
    with pytest.raises(ValueError, match="share of training"):
        method(batch, progress=progress)
    for legal in (0, 1, 0.5, torch.tensor(1.0)):
        method(batch, legal)


def test_a_pair_of_images_and_labels_is_a_batch():
    method, batch = baseline()
    expected = method.eval()(batch).loss
    for pair in ((batch.images, batch.target), [batch.images, batch.target]):
        assert torch.equal(method(pair).loss, expected) and torch.equal(method(batch=pair).loss, expected)
    with pytest.raises(ValueError, match=r"a batch is sd.Batch\(.*\) or a pair of both, not a list of 3"):
        method([batch.images, batch.target, batch.target])
    with pytest.raises(ValueError, match="or a pair of both, not a dict of 2"):
        method({"image": batch.images, "label": batch.target})


@every_task
def test_evaluate_takes_a_data_loader_of_pairs(kind):
    method, batch = baseline(kind)
    pairs = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(batch.images, batch.target), batch_size=3)
    settings = {"num_classes": CLASSES, "kind": kind}
    assert evaluate(method.student, pairs, **settings).main == evaluate(method.student, [batch], **settings).main


def test_evaluate_refuses_what_is_no_network_and_no_batch(untyped):
    method, batch = baseline()
    for student, sentence in ((method, "this is a Baseline; give its student"), ("timm:resnet18", "this is a str")):
        with pytest.raises(ValueError, match=f"evaluate scores a plain network, and {sentence}"):
            evaluate(student, [batch], num_classes=CLASSES)
    wrong = {
        "images are torch.uint8; give floats": changed(batch, images=lambda x: x.byte()),
        "not a Tensor": batch.images,
    }
    for sentence, given in wrong.items():
        with pytest.raises(ValueError, match=sentence):
            evaluate(method.student, [given], num_classes=CLASSES)


@every_task
def test_evaluate_says_what_is_wrong_with_labels_classes_and_batches(untyped, kind):
    method, batch = baseline(kind)
    examples = torch.utils.data.TensorDataset(batch.images, batch.target)
    wrong = [
        ([changed(batch, target=lambda y: y.float())], CLASSES, r"labels are torch.float32; .*target.long\(\)"),
        ([changed(batch, target=lambda y: y[..., None])], CLASSES, r"labels \(8, .*1\) must be \(b,\), or \(b, h, w\)"),
        ([changed(batch, target=lambda y: y.tolist())], CLASSES, "batch.target is a list; give a tensor"),
        (examples, CLASSES, r"images \(3, 16, 16\) and labels \(.*\) are one example, .*DataLoader of the data set"),
        ([batch], "4", "num_classes='4' must be a whole number, 1 or more"),
        ([batch], 0, "num_classes=0 must be a whole number, 1 or more"),
    ]
    if kind == "classification":
        wrong.append(
            ([changed(batch, target=lambda y: y.int())], CLASSES, r"labels are torch.int32; .*target.long\(\)")
        )
    for batches, num_classes, sentence in wrong:
        with pytest.raises(ValueError, match=sentence):
            evaluate(method.student, batches, num_classes=num_classes, kind=kind)


def test_a_student_may_cast_its_images():
    method, batch = baseline()
    method.double().student.register_forward_pre_hook(lambda module, args: (args[0].double(),))
    assert method(batch).loss.isfinite()


def test_a_student_that_cannot_learn_is_refused_unless_the_method_froze_it():
    task = small_task()
    with pytest.raises(ValueError, match=r"no weight of the student .* student.requires_grad_\(True\) before Baseline"):
        create_method("baseline", small_student(task).requires_grad_(False), task)
    frozen = create_method("sskd_teacher", small_student(task).requires_grad_(False), task, joint=False)
    assert not any(parameter.requires_grad for parameter in frozen.student.parameters())
    partly = small_student(task).requires_grad_(False)
    partly.fc.requires_grad_(True)
    create_method("baseline", partly, task)


def changed(batch, **fields):
    return batch._replace(**{name: change(getattr(batch, name)) for name, change in fields.items()})


@every_task
@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"target": lambda y: y.int()}, r"labels are torch.int32; give class numbers as int64, target.long\(\)"),
        ({"target": lambda y: y.clamp(min=0).to(torch.uint8)}, "labels are torch.uint8; give class numbers as int64"),
        (
            {"target": lambda y: y.float()},
            "class numbers and this is torch.float32; give probabilities as",
        ),
        ({"target": lambda y: y[:-1]}, "there are 8 images and 7 labels"),
        ({"target": lambda y: y[..., None]}, r"labels \(8, .*1\) must be \(b.*\), a class number for each"),
        ({"target": lambda y: y.clamp(min=0) + 1}, "label 5 is none of the classes 0 to 4; they seem to begin at 1"),
        (
            {"target": lambda y: y.clamp(min=0) - 1},
            "label -1 is none of .* or make the task with ignore_index=-1",
        ),
        ({"target": lambda y: y.clamp(min=0) + 7}, "num_classes=5 counts too few, or the label is wrong"),
        ({"images": lambda x: (50 * x + 128).clamp(0, 255).byte()}, "images are torch.uint8; give floats, scaled and"),
        ({"images": lambda x: x.permute(0, 2, 3, 1)}, r"images \(8, 16, 16, 3\) must be \(b, 3, h, w\), as the task"),
        ({"images": lambda x: x[0]}, r"images \(3, 16, 16\) must be \(b, 3, h, w\)"),
    ],
)
def test_wrong_images_and_labels_are_refused_in_a_sentence(kind, fields, sentence):
    method, batch = baseline(kind)
    with pytest.raises(ValueError, match=sentence) as caught:
        method(changed(batch, **fields))
    assert "\n" not in str(caught.value)


@every_task
def test_several_classes_for_one_image_are_no_probabilities(kind):
    method, batch = baseline(kind)
    several = torch.ones(8, CLASSES, *batch.target.shape[1:])
    for wrong in (
        several,
        several / 4,
        several / CLASSES - torch.eye(CLASSES)[0].view(1, -1, *[1] * (several.ndim - 2)),
    ):
        with pytest.raises(ValueError, match="probabilities that sum to 1 .* train on sd.Task."):
            method(batch._replace(soft_target=wrong))
    with pytest.raises(ValueError, match="soft_target .* must have the shape of the scores"):
        method(batch._replace(soft_target=several[:, :3]))
    with pytest.raises(ValueError, match="give probabilities as soft_target"):
        method(batch._replace(target=several))
    assert method(batch._replace(soft_target=several / CLASSES)).loss.isfinite()


def test_void_is_no_label():
    method, batch = baseline("segmentation", ignore_index=255)
    target = batch.target.where(batch.target >= 0, 255)
    assert method(batch._replace(target=target)).loss.isfinite()
    method, batch = baseline("segmentation")
    with pytest.raises(ValueError, match="label 255 is none of .*; where a pixel has no label give -100"):
        method(batch._replace(target=target))


def test_the_index_of_an_image_that_is_not_there_is_refused():
    task = small_task()
    method = create_method("ps_kd", small_student(task), task)
    batch = small_batch(type(method), task)
    with pytest.raises(ValueError, match="batch.index goes from 30 to 37, and the task has 32 images"):
        method(batch._replace(index=batch.index + 30))


def test_values_on_another_device_are_read_in_the_first_call_alone(monkeypatch):
    method, batch = baseline()
    read = []
    monkeypatch.setattr("selfdistill.method.check_labels", lambda *args: read.append(args))
    monkeypatch.setattr(torch.Tensor, "device", torch.device("cuda:0"))
    for _ in range(3):
        method(batch, torch.tensor(0.5))
    assert len(read) == 1


class NeedsGradients(nn.Module):
    def __init__(self, num_classes=CLASSES, at_rest=False):
        super().__init__()
        self.body, self.at_rest = small_student(small_task()), at_rest

    def forward(self, images):
        with torch.set_grad_enabled(torch.is_grad_enabled() or self.at_rest):
            scores = self.body(images)
            (slope,) = torch.autograd.grad(scores.sum(), self.body.fc.weight, create_graph=True)
            return scores * (1 + slope.mean())


def test_a_student_that_needs_gradients_is_told_how_to_be_scored_without():
    shape, told = {"num_classes": CLASSES, "image_shape": (3, 16, 16)}, r"without gradients, .* torch.enable_grad\(\)"
    with pytest.raises(ValueError, match=f"raised RuntimeError: .*{told}"):
        build_student(f"{__name__}:NeedsGradients", **shape)
    with pytest.raises(ValueError, match=f"NeedsGradients does not run on 3x16x16 .*{told}"):
        create_method("frskd", NeedsGradients(), small_task(), total_steps=100)
    build_student(f"{__name__}:NeedsGradients", **shape, at_rest=True)


@every_task
def test_a_student_that_ends_in_a_softmax_is_told(kind):
    task = small_task(kind)
    student = nn.Sequential(small_student(task), nn.Softmax(dim=1))
    with pytest.raises(ValueError, match="scores of Sequential are probabilities, as after a softmax; let it"):
        create_method("baseline", student, task)(small_batch(Baseline, task))
    own = Task(kind, CLASSES, (3, 16, 16), criterion=lambda scores, target, *_: scores.square().mean())
    assert create_method("baseline", student, own)(small_batch(Baseline, task)).loss.isfinite()


# after_step


def trained(method, batch, optimizer=None, *, calls=True, accumulate=1):
    optimizer = optimizer or torch.optim.SGD(method.student.parameters(), lr=0.05)
    for _ in range(2):
        for _ in range(accumulate):
            method(batch, 0.5).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if calls:
            method.after_step()
    return method


def trailing():
    task = small_task(side=8)
    return small_method(MeanTeacher, task), small_batch(MeanTeacher, task)


MISSING = r"MeanTeacher did not move its teacher after the last optimizer step; call method.after_step\(\) behind each"


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.AdamW])
def test_a_missing_after_step_ends_the_next_step(kind):
    method, batch = trailing()
    with pytest.raises(ValueError, match=MISSING):
        trained(method, batch, kind(method.parameters(), lr=0.01), calls=False)
    method.after_step()
    assert method(batch).loss.isfinite()


def test_evaluation_accumulation_and_other_optimizers_need_no_after_step():
    method, batch = trailing()
    trained(method, batch, accumulate=3)
    method(batch).loss.backward()
    other = nn.Linear(2, 2)
    torch.optim.SGD(other.parameters(), lr=0.1).step()
    method(batch)  # whose own parameters did not move
    torch.optim.SGD(method.student.parameters(), lr=0.1).step()
    method.eval()(batch)
    with torch.no_grad():
        method.train()(batch)
    with pytest.raises(ValueError, match=MISSING):
        method(batch)


def test_methods_without_a_trailing_teacher_need_no_after_step():
    method, batch = baseline()
    assert trained(method, batch, calls=False)


@pytest.mark.slow
def test_a_copy_is_watched_by_itself_and_nothing_is_left_behind():
    gc.collect()
    before = len(_global_optimizer_post_hooks)
    method, batch = trailing()
    copies = [copy.deepcopy(method), pickle.loads(pickle.dumps(method))]
    assert len(_global_optimizer_post_hooks) == before + 3
    with pytest.raises(ValueError, match=MISSING):
        trained(copies[0], batch, calls=False)
    assert method(batch).loss.isfinite() and copies[1](batch).loss.isfinite()
    del method, copies
    assert len(_global_optimizer_post_hooks) == before


@pytest.mark.parametrize(
    ("num_classes", "shape", "message"),
    [
        (0, (3, 16, 16), "num_classes=0 must be a whole number"),
        (4.0, (3, 16, 16), "num_classes=4.0 must be"),
        ("4", (3, 16, 16), "num_classes='4' must be"),
        (4, (16, 16), r"image_shape=\(16, 16\) must be \(channels, height, width\)"),
        (4, 32, "image_shape=32 must be"),
        (4, (3, 0, 16), "image_shape="),
        (4, "cat", "image_shape='cat'"),
    ],
)
def test_a_task_without_classes_or_an_image_shape_is_refused(untyped, num_classes, shape, message):
    with pytest.raises(ValueError, match=message):
        Task("classification", num_classes, shape)


@pytest.mark.parametrize(
    ("change", "progress", "message"),
    [
        ({"target": None}, 0.5, "batch.target is a NoneType; give a tensor"),
        ({"target": [0, 1]}, 0.5, "batch.target is a list"),
        ({"images": "x"}, 0.5, "batch.images is a str"),
        ({"images": torch.empty(0, 3, 16, 16), "target": torch.empty(0).long()}, 0.5, "the batch holds no image"),
        ({}, None, "progress=None is the share"),
        ({}, "0.5", "progress='0.5' is the share"),
    ],
)
def test_what_is_no_batch_and_no_progress_is_refused(untyped, change, progress, message):
    task = small_task()
    method = create_method("baseline", small_student(task), task)
    with pytest.raises(ValueError, match=message):
        method(small_batch(Baseline, task)._replace(**change), progress)


def test_total_steps_that_are_no_number_are_refused(untyped):
    task = small_task()
    with pytest.raises(ValueError, match="total_steps='9' is how many"):
        create_method("frskd", small_student(task), task, total_steps="9")


class Telling(nn.Module):
    """A network that returns its scores as transformers do, or under "out" as torchvision does."""

    def __init__(self, *, as_dict):
        super().__init__()
        self.body, self.fc, self.as_dict = nn.Conv2d(3, 4, 3), nn.Linear(4, 5), as_dict

    def forward(self, images):
        scores = self.fc(self.body(images).relu().mean(dim=(2, 3)))
        return {"out": scores} if self.as_dict else SimpleNamespace(logits=scores)


@pytest.mark.parametrize("as_dict", [False, True])
def test_scores_inside_of_what_a_network_returns_are_found(as_dict):
    task, student = Task("classification", 5, (3, 8, 8)), Telling(as_dict=as_dict)
    method = create_method("at", student, task, teacher=Telling(as_dict=as_dict), taps=["body"])
    step = method(Batch(torch.randn(2, 3, 8, 8), torch.tensor([0, 4])))
    assert step.logits.shape == (2, 5) and method.student.network is student
    assert [tap.name for tap in method.taps] == ["network.body"]
