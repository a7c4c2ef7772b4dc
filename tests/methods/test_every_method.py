"""The contract: what every file of `methods/` keeps, tested for each by its existing."""

import copy
import functools
import importlib
import weakref
from types import SimpleNamespace
from typing import Literal, get_args, get_origin, get_type_hints

import annotated_types
import pytest
import torch
import torch.nn.functional as F

from helpers.batches import double_batch, small_batch, small_task
from helpers.contract import CASES, FEWER_CASES, METHODS, built, every_case, first_step, made, train
from helpers.methods import small_method, small_teacher
from helpers.networks import CLASSES, small_student
from helpers.states import same, same_states
from selfdistill import create_method, losses
from selfdistill.commands.cards import list_tasks_of
from selfdistill.hyperparameters import Weight, hparam
from selfdistill.method import Method
from selfdistill.methods import find_method
from selfdistill.task import Batch, Step
from selfdistill.tasks import Task, find_task, list_tasks

every_method = pytest.mark.parametrize("name", METHODS)


def first_task(name):
    return list_tasks_of(find_method(name))[0]


def any_case(name):
    return made(name, first_task(name))


@functools.cache
def trained(name, kind):
    """A method after three steps, its batch, and copies of the batch and of the teacher's state before them."""
    method, batch = made(name, kind)
    given = [None if part is None else part.clone() for part in batch]
    teacher = None if method.teacher is None else copy.deepcopy(method.teacher.state_dict())
    train(method.train(), batch, range(3))
    return method, batch, given, teacher


@pytest.mark.parametrize(
    ("side", "padding"),
    [pytest.param(16, 1, id="halving"), pytest.param(15, 0, id="odd", marks=pytest.mark.slow)],
)
@every_case
def test_one_step_is_finite_and_every_parameter_learns(name, kind, side, padding):
    method, batch, step = first_step(name, kind)
    if padding == 0:
        task, found = small_task(kind, side), find_method(name)
        method, batch = small_method(found, task, student=small_student(task, padding=0)), small_batch(found, task)
        step = method(batch, torch.tensor(0.5))
        step.loss.backward()
    assert isinstance(step, Step)
    assert step.losses and all(term.shape == () and term.isfinite() for term in step.losses.values())
    assert step.loss.shape == ()
    assert step.logits.shape == (len(batch.images), CLASSES, *method.task.positions)
    silent = [
        each
        for each, p in method.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.count_nonzero())
    ]
    assert not silent
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.requires_grad)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [case for case in CASES if case not in FEWER_CASES])
def test_a_step_on_several_labels_teaches_every_parameter(name, kind):
    method, batch = made(name, kind)
    method(batch, torch.tensor(0.5)).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in method.parameters() if p.requires_grad)


OWN_TEACHERS = {"bake", "deep_supervision", "frskd", "frskd_sla", "mean_teacher", "mixskd", "one", "sla_sd"}


@every_case
def test_an_own_teacher_shows_its_scores_without_a_gradient(name, kind):
    method, _, step = first_step(name, kind)
    assert (step.teacher_logits is not None) == (name in OWN_TEACHERS)
    if step.teacher_logits is not None:
        assert step.teacher_logits.shape == step.logits.shape and not step.teacher_logits.requires_grad
        assert not torch.equal(step.teacher_logits, step.logits)
        assert method.learns_from_own_teacher == (name != "deep_supervision")


@every_case
def test_logits_are_the_students_for_the_images(name, kind):
    method, batch = made(name, kind)
    method.student.eval()  # batch statistics would depend on what else a method runs through the student
    torch.testing.assert_close(method(batch).logits, method.student(batch.images))


@every_case
def test_student_keeps_its_keys_and_outputs(name, kind):
    method, batch = made(name, kind)
    twin = small_student(method.task)
    assert same_states(method.student, twin)
    with torch.no_grad():
        assert torch.equal(method.student.eval()(batch.images), twin.eval()(batch.images))
    method, *_ = trained(name, kind)
    assert not same_states(method.student, twin)
    twin.load_state_dict(method.student.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(method.student.eval()(batch.images), twin.eval()(batch.images))


@every_case
def test_inputs_are_left_as_they_were(name, kind):
    _, batch, before, _ = trained(name, kind)
    for old, new in zip(before, batch, strict=True):
        assert old is new is None or torch.equal(old, new)


@every_case
def test_bfloat16_autocast_moves_the_terms_only_as_far_as_the_networks(name, kind):
    method, batch = made(name, kind)
    torch.manual_seed(0)
    plain = copy.deepcopy(method)(batch, torch.tensor(0.9)).losses
    torch.manual_seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        step = method(batch, torch.tensor(0.9))
    for term, value in step.losses.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, plain[term], rtol=0.2, atol=0.05, msg=term)
    step.loss.backward()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.requires_grad)


PASSES = [
    *((name, {}, {"cs_kd": 4, "dlb": 3}.get(name, 2)) for name in METHODS),  # dlb: a first step has no old images
    ("cs_kd", {"weight": 0.0}, 2),
    ("frskd", {"feature_loss": "hint"}, 2),
    ("frskd_sla", {"reuse_upright": False}, 4),
]


@pytest.mark.parametrize(("name", "settings", "count"), PASSES, ids=str)
def test_running_statistics_move_once_with_each_pass_of_two_steps(name, settings, count):
    method, batch = made(name, **settings)
    for _ in range(2):
        method(batch)
    state = {key: value for key, value in method.state_dict().items() if not key.startswith(("teacher.", "trailing."))}
    assert {int(value) for key, value in state.items() if key.endswith("num_batches_tracked")} == {count}


@every_method
def test_student_run_outside_the_method_keeps_no_maps(name):
    method, batch, _ = first_step(name, first_task(name))
    emitted = []
    hook = method.student.stage2.register_forward_hook(lambda module, args, output: emitted.append(weakref.ref(output)))
    with torch.no_grad(), hook:
        method.student(batch.images)
    assert emitted and emitted[0]() is None


@every_method
def test_teacher_is_frozen_and_stays_in_eval_mode(name):
    if not find_method(name).needs_teacher:
        task = small_task(first_task(name))
        with pytest.raises(ValueError, match="needs no teacher; leave out method.teacher, or teacher="):
            create_method(name, small_student(task), task, teacher=small_student(task))
        return
    method, _, _, before = trained(name, first_task(name))
    assert all(same(value, before[key]) for key, value in method.teacher.state_dict().items())
    assert not any(module.training for module in method.teacher.net.modules())
    with pytest.raises(ValueError, match="needs a teacher: set method.teacher to .*, or pass teacher=, a trained "):
        create_method(name, small_student(method.task), method.task)


@every_method
def test_teacher_of_the_wrong_kind_is_refused_by_name(name):
    found, task = find_method(name), small_task()
    if not found.needs_teacher:
        return
    wanted = f"method={found.teacher_method}" if found.teacher_method else "a plain network"
    wrong = small_student(task) if found.teacher_method else small_method(find_method("baseline"), task)
    with pytest.raises(ValueError, match=f"must be .*{wanted}"):
        create_method(name, small_student(task), task, teacher=wrong)


@pytest.mark.slow
@every_method
def test_double_students_and_unfit_students_and_teachers(name):
    found, task = find_method(name), small_task(first_task(name))
    if not found.needs_teacher:
        method = small_method(found, task, student=small_student(task).double())
        assert method(double_batch(found, task)).loss.isfinite()
        return
    teacher = small_teacher(found.teacher_method, task)
    with pytest.raises(ValueError, match="shares weights"):
        create_method(name, getattr(teacher, "student", teacher), task, teacher=teacher)


def test_a_student_of_other_classes_is_refused_at_its_first_step():
    method = find_method("baseline")(small_student(small_task()), small_task().replace(num_classes=7))
    with pytest.raises(ValueError, match=f"the student scores {CLASSES} classes and the task has 7"):
        method(small_batch(type(method), small_task()))


@pytest.mark.parametrize(("scored", "asked"), [("classification", "segmentation"), ("segmentation", "classification")])
def test_a_student_of_another_task_is_refused_by_the_shape_of_its_scores(scored, asked):
    shapes = {"classification": r"\(b, k\)", "segmentation": r"\(b, k, 16, 16\)"}
    with pytest.raises(ValueError, match=f"16x16 images as {shapes[scored]}, and {asked} needs {shapes[asked]}"):
        small_method(find_method("tfd"), small_task(asked), student=small_student(small_task(scored)))


@every_method
def test_a_batch_without_what_the_method_needs_is_refused_in_one_sentence(name):
    method, batch = built(name, first_task(name))
    for part, count in (("views", method.views), ("positives", method.positives)):
        if count:
            with pytest.raises(ValueError, match=rf"needs batch\.{part} with {count} for each image"):
                method(batch._replace(**{part: None}))


class Taught(Method):
    """The smallest method with a teacher: what it asks for is what the base promises."""

    needs_teacher = True
    soft_targets = False
    weight: Weight = hparam(1.0, "weighs the soft-label loss")

    def setup(self):
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, batch, progress=0.0):
        logits = self.student(batch.images)
        self.seen += len(logits)
        kd = self.weight * losses.kd(logits, self.teacher(batch.images))
        return Step({"task": self.task.loss(logits, batch.target), "kd": kd}, logits)


class Firm(Taught):
    """A method that takes a setting of its parent's away."""

    weight = 2.0


def test_a_teacher_is_never_trained_nor_put_in_training_mode():
    task = small_task()
    method, batch = small_method(Taught, task), small_batch(Taught, task)
    before = copy.deepcopy(method.teacher.state_dict())
    train(method.train(), batch, range(3))
    assert method.student.training and not any(module.training for module in method.teacher.net.modules())
    assert all(torch.equal(value, before[key]) for key, value in method.teacher.state_dict().items())
    assert not any(parameter.requires_grad for parameter in method.teacher.parameters())
    assert method.seen == 3 * len(batch.images)
    assert not any(key.startswith("teacher") for key in method.student.state_dict())


def test_a_fixed_setting_is_no_hyperparameter_any_more():
    task = small_task()
    assert Taught.defaults() == {"weight": 1.0} and Firm.defaults() == {} and Firm.weight == 2.0
    with pytest.raises(ValueError, match="Firm has no hyper-parameter 'weight'"):
        small_method(Firm, task, weight=3.0)
    kd = [small_method(kind, task)(small_batch(kind, task)).losses["kd"] for kind in (Taught, Firm)]
    torch.testing.assert_close(kd[1], 2 * kd[0])


@every_method
def test_outputs_are_as_declared(name):
    outputs = find_method(name).outputs
    assert outputs and set(outputs) <= {"image", "pixel"}
    for kind in [task for task in list_tasks() if find_task(task).output not in outputs]:
        task = small_task(kind)
        words = f"trains networks that score {' or '.join(outputs)}s, and {kind} needs scores of {task.output}s"
        with pytest.raises(ValueError, match=words):
            small_method(find_method(name), task)


def binary_loss(logits, target, soft_target, ignore_index):
    return F.binary_cross_entropy_with_logits(logits, target)


@every_method
def test_targets_are_as_declared(name):
    """A method for any target leaves the labels and soft labels to the task; others refuse what is not a class."""
    kind = find_method(name)
    facts = {"predict": None, "soft_label_loss": None, "label_checks": None}
    tags = SimpleNamespace(name="tags", output="image", target="tags", **facts)
    tags.create_criterion = lambda *_, **__: binary_loss
    task = Task(tags, CLASSES, (3, 16, 16), num_examples=32)
    student = small_student(small_task())
    teacher = small_student(small_task(), seed=4) if kind.needs_teacher and not kind.teacher_method else None
    settings = {"alpha": 0.0} if name == "frskd" else {}
    if kind.targets is not None:
        with pytest.raises(ValueError, match="needs labels of the form class.*, and those of tags are tags"):
            kind(student, task, teacher=teacher)
        return
    if kind.soft_label_terms and not kind.soft_labels_are_optional:
        with pytest.raises(ValueError, match="compares soft labels, and tags has no soft_label_loss"):
            kind(student, task, teacher=teacher)
        task = task.replace(soft_label_loss=losses.binary_kd)
    method = kind(student, task, teacher=teacher, **settings).train()
    target = torch.randint(2, (4, CLASSES)).float()
    images = torch.randn(4, 1 + kind.views, 3, 16, 16)
    step = method(Batch(images[:, 0], target, views=images[:, 1:]))
    step.loss.backward()
    if name in ("at", "baseline", "frskd", "one"):
        torch.testing.assert_close(step.losses["task"], F.binary_cross_entropy_with_logits(step.logits, target))


def terms_with(kind, soft_label_loss):
    task = small_task().replace(soft_label_loss=soft_label_loss)
    teacher = small_teacher(kind.teacher_method, small_task()).float() if kind.needs_teacher else None
    torch.manual_seed(3)
    method = kind(small_student(task), task, teacher=copy.deepcopy(teacher)).train()
    batch = small_batch(kind, task)
    for _ in range(2):  # the first step of dlb has no scores to learn from
        torch.manual_seed(4)
        step = method(batch, torch.tensor(0.9))
    return step.losses


@pytest.mark.parametrize("name", [name for name in METHODS if find_method(name).soft_label_terms])
def test_the_tasks_soft_labels_are_in_the_terms_that_are_declared(name):
    plain, doubled = (
        terms_with(find_method(name), loss) for loss in (losses.kd, lambda *scores: 2 * losses.kd(*scores))
    )
    for term, value in plain.items():
        factor = 2 if term in find_method(name).soft_label_terms else 1
        torch.testing.assert_close(doubled[term], factor * value, msg=term)


@every_method
def test_mixed_labels_are_taken_as_declared(name):
    method, batch = any_case(name)
    hard = batch.target.clamp(min=0)
    soft = F.one_hot(hard, CLASSES).movedim(-1, 1).float()
    if not method.soft_targets:
        with pytest.raises(ValueError, match="needs one class for each image, and these labels are mixed"):
            method(batch._replace(soft_target=soft))
        return
    steps = []
    for labels in ({"target": hard}, {"target": hard.flip(0), "soft_target": soft}):
        torch.manual_seed(0)
        steps.append(copy.deepcopy(method)(batch._replace(**labels)))
    for term, value in steps[0].losses.items():
        torch.testing.assert_close(steps[1].losses[term], value)
    step = method(batch._replace(soft_target=0.7 * soft + 0.3 * soft.flip(0)))
    step.loss.backward()
    assert step.loss.isfinite()


@every_method
def test_probabilities_as_target_are_refused(name):
    method, batch = built(name, first_task(name))
    soft = F.one_hot(batch.target.clamp(min=0), CLASSES).movedim(-1, 1).float()
    with pytest.raises(ValueError, match="target holds class numbers .* give probabilities as soft_target"):
        method(batch._replace(target=soft))


@every_method
def test_file_holds_one_method_and_says_what_it_is_what_it_costs_and_the_paper(name):
    module = importlib.import_module(f"selfdistill.methods.{name}")
    assert issubclass(find_method(name), Method)
    assert module.__doc__ and find_method(name).__doc__ and find_method(name).cost
    assert "https://" in module.__doc__ or name == "baseline"


@every_method
def test_defaults_are_plain_values_of_their_own_type(name):
    kind = find_method(name)
    defaults = kind.defaults()
    assert kind.validate({}) == defaults
    assert all(isinstance(value, float | int | str | bool | None) for value in defaults.values())
    method, _ = built(name, first_task(name))
    assert {setting: getattr(method, setting) for setting in defaults} == defaults


@every_method
def test_hyperparameters_are_not_names_of_a_module(name):
    assert not set(find_method(name).hyperparameters()) & set(dir(torch.nn.Module))


@every_method
def test_short_run_defaults_are_hyperparameters_and_allowed(name):
    kind = find_method(name)
    task = small_task(list_tasks_of(kind)[0])
    settings = kind.short_run_defaults(task.output, {}, 100)
    assert settings.keys() <= kind.hyperparameters().keys()
    assert kind.short_run_defaults(task.output, kind.validate(settings), 100) == {}  # what is given is left alone
    method, batch = made(name, task.kind, **settings)
    assert method(batch, torch.tensor(0.3)).loss.isfinite()


@every_method
def test_unknown_hyperparameters_are_refused_and_misspelt_ones_with_the_right_name(name):
    with pytest.raises(ValueError, match="has no hyper-parameter 'zzzz'"):
        find_method(name).validate({"zzzz": 1})
    for setting, value in find_method(name).defaults().items():
        with pytest.raises(ValueError, match=f"has no hyper-parameter '{setting}x'; did you mean '{setting}'"):
            find_method(name).validate({f"{setting}x": value})


@every_method
def test_illegal_values_are_refused_by_name(name):
    kind = find_method(name)
    hints = get_type_hints(kind, include_extras=True)
    for setting in kind.hyperparameters():
        for value in ["nonsense", [1], *out_of_range(hints[setting])]:
            with pytest.raises(ValueError, match=rf"{kind.__name__}: {setting}="):
                kind.validate({setting: value})


def out_of_range(hint):
    """Values of the right type that an annotation forbids; a number without any bound fails the test."""
    numeric = [each for each in (hint, *get_args(hint)) if get_origin(each) is not Literal]
    bounds = [bound for each in numeric for bound in getattr(each, "__metadata__", ())]
    assert bounds or not {int, float} & {hint, *get_args(hint)}, "a number without bounds"
    if float in {inner for each in numeric for inner in (each, *get_args(each))}:
        yield from (float("nan"), float("inf"))
    for bound in bounds:
        for single in bound if isinstance(bound, annotated_types.Interval) else [bound]:
            if isinstance(single, annotated_types.Ge):
                yield single.ge - 1
            elif isinstance(single, annotated_types.Gt):
                yield single.gt
            elif isinstance(single, annotated_types.Le):
                yield single.le + 1
            elif isinstance(single, annotated_types.Lt):
                yield single.lt


def test_no_name_but_a_methods_is_taken():
    with pytest.raises(ValueError, match="no method is called 'frsdk'; did you mean 'frskd'"):
        find_method("frsdk")
    with pytest.raises(ValueError, match="no method is called 'zzzz'; `selfdistill methods` lists them"):
        find_method("zzzz")


def test_method_from_elsewhere_is_taken_by_its_place():
    assert find_method("selfdistill.methods.frskd:FRSKD") is find_method("frskd")
    for place, wrong in {"selfdistill.nowhere:FRSKD": "nowhere", "selfdistill.methods.frskd:FRSDK": "FRSDK"}.items():
        with pytest.raises(ValueError, match=wrong):
            find_method(place)
    for place in ("selfdistill.task:Task", "selfdistill.method:Method"):
        with pytest.raises(ValueError, match="is not a subclass of selfdistill.Method"):
            find_method(place)


def terms_under(name, **settings):
    """The loss terms of a method for one batch, where its task has these settings of the loss."""
    kind = find_method(name)
    task_name = list_tasks_of(kind)[0]
    task = Task(task_name, CLASSES, (3, 16, 16), num_examples=32, **settings)
    plain = small_task(task_name)
    teacher = copy.deepcopy(small_teacher(kind.teacher_method, plain)).float() if kind.needs_teacher else None
    torch.manual_seed(3)
    method = kind(small_student(plain), task, teacher=teacher).train()
    torch.manual_seed(0)
    return method(small_batch(kind, plain), torch.tensor(0.5)).losses


def double_loss(logits, target, soft_target, ignore_index):
    return 2 * losses.cross_entropy(logits, target, soft_target, ignore_index)


@pytest.mark.slow
@every_method
def test_loss_and_class_weights_of_the_task_reach_the_terms_that_a_method_declares_and_no_other(name):
    kind, (method, batch) = find_method(name), any_case(name)
    torch.manual_seed(0)
    plain = method(batch, torch.tensor(0.5)).losses
    supervised, weighted = {*kind.supervised_terms}, {*kind.supervised_terms, *kind.weighted_terms}
    assert weighted & plain.keys()
    uneven = terms_under(name, class_weights=[4.0, *[0.25] * (CLASSES - 1)])
    for term, value in plain.items():
        assert torch.allclose(uneven[term], value, rtol=1e-3) == (term not in weighted), term
    if not supervised:
        with pytest.raises(ValueError, match="has a supervised loss of its own"):
            terms_under(name, loss=double_loss)
        return
    doubled = terms_under(name, loss=double_loss)
    for term, value in plain.items():
        torch.testing.assert_close(doubled[term], (1 + (term in supervised)) * value, msg=f"{name}: {term}")
