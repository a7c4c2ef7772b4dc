"""The methods on pixels: every term against the slow reference, what pixels without a label do, and who learns."""

import copy
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from helpers.methods import names_reached, settled_in_double
from helpers.networks import small_student
from reference import dense as slow
from reference.frskd import Weights
from selfdistill import Batch, Task, create_method, list_methods
from selfdistill.method import Method
from selfdistill.methods import find_method
from selfdistill.modules.pyramid import PyramidTeacher

SIZE = (15, 11)  # odd: the student's maps have 15x11, 8x6 and 4x3 positions
ROWS = 2
AWAKE = 0.9  # a share of training at which every term counts
DENSE = [name for name in list_methods() if "pixel" in find_method(name).outputs]
every_method = pytest.mark.parametrize("name", DENSE)


def dense_task(classes: int = 5, kind: str = "segmentation") -> Task:
    return Task(kind, classes, (3, *SIZE))


class Movable(nn.Module):
    """A segmenter whose scores can be moved, pixel by pixel, alike for all images."""

    def __init__(self, task: Task, **options: Any) -> None:
        super().__init__()
        self.net = small_student(task, **options)
        self.shift = nn.Parameter(torch.zeros(task.num_classes, *task.positions))
        self.tap_names = ["net.stage1", "net.stage2", "net.stage3"]

    def forward(self, images: Tensor) -> Tensor:
        return self.net(images) + self.shift


def made(name: str, task: Task, student: nn.Module | None = None, teacher: nn.Module | None = None, **settings: Any):
    """The method in float64, its norms and fusion weights away from where they start."""
    student = Movable(task) if student is None else student
    if find_method(name).needs_teacher:
        settings["teacher"] = Movable(task, padding=0, seed=7) if teacher is None else teacher
    return settled_in_double(create_method(name, student, task, **settings)).train()


@functools.cache
def built(name: str, classes: int = 5) -> Method:
    """What the tests copy: finding the student's maps takes dry runs, and a copy none."""
    return made(name, dense_task(classes))


def method_and_batch(name: str, classes: int = 5, void: Tensor | float = 0.3) -> tuple[Any, Batch]:
    return copy.deepcopy(built(name, classes)), batch_for(dense_task(classes), void)


def batch_for(task: Task, void: Tensor | float = 0.3, rows: int = ROWS) -> Batch:
    """Random images and labels; none where `void`, a mask of the pixels or a share of them."""
    images = torch.randn(rows, *task.image_shape, dtype=torch.float64)
    target = torch.randint(task.num_classes, (rows, *task.positions))
    void = torch.rand(target.shape) < void if isinstance(void, float) else void
    return Batch(images, torch.where(void, task.ignore_index, target))


def later(progress: float = AWAKE) -> Tensor:
    return torch.tensor(progress, dtype=torch.float64)


class Seen:
    """What the networks give for a batch, as float64 arrays."""

    def __init__(self, method: Method, batch: Batch) -> None:
        self.method, self.images, self.target = method, batch.images, batch.target.numpy()

    @functools.cached_property
    @torch.no_grad()
    def logits(self) -> np.ndarray:
        return self.method.student(self.images).numpy()

    @functools.cached_property
    @torch.no_grad()
    def features(self) -> list[np.ndarray]:
        return [each.numpy() for each in self.method.taps(self.images)[1]]

    @functools.cached_property
    def teacher_logits(self) -> np.ndarray:
        return self.method.teacher(self.images).numpy()

    @functools.cached_property
    def teacher_features(self) -> list[np.ndarray]:
        return [each.numpy() for each in self.method.ask_teacher(self.images)[1]]


def settings_of(method: Method, *left_out: str) -> dict[str, Any]:
    """The hyper-parameters' values."""
    return {name: getattr(method, name) for name in method.hyperparameters() if name not in left_out}


def weights(module: nn.Module) -> Weights:
    return Weights({name: value.numpy() for name, value in module.state_dict().items()})


def frskds(method: Method, seen: Seen, progress: float = AWAKE) -> dict[str, float]:
    names = ("alpha", "beta", "temperature", "distil_void", "warmup", "ramp")
    if method.self_teacher_net == "pyramid":
        own = slow.pyramid_teacher(seen.features, weights(method.self_teacher))
    else:
        fixed = method.self_teacher_net == "BiFPN"
        shape = {"depth": method.depth, "fixed_width": fixed, "repeat": method.repeat}
        own = slow.self_teacher(seen.features, weights(method.self_teacher), **shape)
    settings = {name: getattr(method, name) for name in names}
    return slow.frskd(seen.logits, seen.features, *own, seen.target, settings=settings, progress=progress)


def byots(method: Method, seen: Seen) -> dict[str, float]:
    exits = [
        slow.separable_exit(
            feature, weights(method.exits) / i, halvings=len(method.exits) - i, attention=method.attention
        )
        for i, feature in enumerate(seen.features[:-1])
    ]
    return slow.byot(seen.logits, seen.features[-1], exits, seen.target, **settings_of(method, "attention"))


def kd_tf_fds(method: Method, seen: Seen) -> dict[str, float]:
    own = {name: getattr(method, name) for name in ("lambda_inter", "lambda_intra", "epsilon")}
    terms = slow.tf_fd(seen.logits, seen.features, seen.target, grown=1.0, **own)
    taught = {name: getattr(method, name) for name in ("alpha", "beta", "temperature")}
    kd = slow.kd(seen.logits, seen.teacher_logits, seen.target, **taught)
    return terms | {"task": method.alpha * terms["task"], "kd": kd["kd"]}


EXPECTED: dict[str, Callable[[Any, Seen], dict[str, float]]] = {
    "at": lambda m, s: slow.at(s.logits, s.features, s.teacher_features, s.target, **settings_of(m)),
    "baseline": lambda m, s: {"task": slow.cross_entropy(s.logits, s.target)},
    "byot": byots,
    "deep_supervision": frskds,
    "frskd": frskds,
    "kd": lambda m, s: slow.kd(s.logits, s.teacher_logits, s.target, **settings_of(m)),
    "kd_tf_fd": kd_tf_fds,
    "label_smoothing": lambda m, s: {"task": slow.smoothed_cross_entropy(s.logits, s.target, **settings_of(m))},
    "sad": lambda m, s: slow.sad(s.logits, s.features, s.target, **settings_of(m, "warmup")),
    "tf_fd": lambda m, s: slow.tf_fd(
        s.logits, s.features, s.target, grown=1.0, **settings_of(m, "warmup", "detach_salient")
    ),
    "tf_kd_reg": lambda m, s: slow.tf_kd_reg(s.logits, s.target, **settings_of(m)),
    "tf_kd_self": lambda m, s: slow.tf_kd_self(s.logits, s.teacher_logits, s.target, **settings_of(m)),
    "tfd": lambda m, s: slow.tfd(s.logits, s.features, s.target, **settings_of(m)),
}


def agree(losses: dict[str, Tensor], expected: dict[str, float]) -> None:
    assert losses.keys() == expected.keys()
    for term, value in losses.items():
        np.testing.assert_allclose(value.item(), expected[term], rtol=1e-9, atol=1e-14, err_msg=term)


@pytest.mark.parametrize("classes", [2, 5])
@every_method
def test_every_term_agrees_with_the_reference(name, classes):
    method, batch = method_and_batch(name, classes)
    agree(method(batch, later()).losses, EXPECTED[name](method, Seen(method, batch)))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("label_smoothing", {"epsilon": 0.3, "share": "others"}),
        ("frskd", {"beta": 0.0}),
        ("frskd", {"alpha": 2.0, "temperature": 3.0, "distil_void": True}),
        ("frskd", {"self_teacher_net": "BiFPN", "num_channels": 6, "repeat": 2, "depth": 1}),
        ("frskd", {"taps": ["net.stage2", "net.stage3"]}),
        ("tfd", {"epsilon": 0.2}),
        ("tf_fd", {"epsilon": 0.2, "detach_salient": True}),
        ("sad", {"reduction": "mean", "weight": 1000.0}),
        ("byot", {"attention": False, "squared_temperature": True, "alpha": 0.6}),
        ("tf_kd_reg", {"softens": "logits", "temperature": 3.0}),
    ],
    ids=str,
)
def test_every_setting_that_changes_a_term_agrees_with_the_reference(name, settings):
    method, batch = made(name, dense_task(), **settings), batch_for(dense_task())
    agree(method(batch, later()).losses, EXPECTED[name](method, Seen(method, batch)))


UNLABELLED = torch.arange(SIZE[0] * SIZE[1]).reshape(SIZE) % 3 == 0  # the pixels without a label, in every image
SCORED = {  # beside the cross-entropy, the terms in which the student's scores are compared
    "frskd": {"kd"},
    "kd": {"kd"},
    "kd_tf_fd": {"kd"},
    "tf_kd_reg": {"reg"},
    "tf_kd_self": {"kd"},
}


def move(method: Any, pixels: Tensor) -> None:
    """Moves all scores at these pixels: the student's, its teacher's and its self-teacher's."""
    noise = 10 * torch.randn(method.student.shift.shape, dtype=torch.float64) * pixels
    with torch.no_grad():
        method.student.shift += noise
        if method.teacher is not None:
            method.teacher.net.shift += noise.flip(0)
    if hasattr(method, "self_teacher"):
        method.self_teacher.fc.register_forward_hook(lambda module, args, scores: scores + noise.flip(0))


@every_method
def test_scores_where_no_label_is_teach_nothing_and_change_no_term(name):
    method, batch = method_and_batch(name, void=UNLABELLED)
    compared = {"task"} | SCORED.get(name, set())
    before = method(batch, later()).losses
    for term, value in before.items():
        (grad,) = torch.autograd.grad(value, method.student.shift, retain_graph=True, allow_unused=True)
        assert (grad is not None) == (term in compared), term
        assert grad is None or (not grad[:, UNLABELLED].count_nonzero() and grad[:, ~UNLABELLED].count_nonzero()), term
    move(method, UNLABELLED)
    after = method(batch, later()).losses
    for term, value in before.items():
        torch.testing.assert_close(after[term], value, rtol=1e-12, atol=0.0)
    move(method, ~UNLABELLED)
    moved = method(batch, later()).losses
    assert all(moved[term] != before[term] for term in compared)


def test_with_distil_void_the_soft_labels_teach_every_pixel_and_the_labels_only_theirs():
    method, batch = method_and_batch("frskd", void=UNLABELLED)
    method.distil_void = True
    before = method(batch, later()).losses
    task, kd = (
        torch.autograd.grad(before[term], method.student.shift, retain_graph=True)[0] for term in ("task", "kd")
    )
    assert kd[:, UNLABELLED].count_nonzero() and not task[:, UNLABELLED].count_nonzero()
    move(method, UNLABELLED)
    after = method(batch, later()).losses
    assert {term for term in before if before[term] != after[term]} == {"kd"}


@every_method
def test_a_batch_without_a_label_has_nothing_to_learn_from_labels(name):
    method, batch = method_and_batch(name, void=1.0)
    step = method(batch, later())
    step.loss.backward()
    learnt = {"task", "teacher", "exits", "kd", "reg"}
    assert all(value.isfinite() and (value == 0) == (term in learnt) for term, value in step.losses.items())
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


@every_method
def test_the_number_that_says_void_is_the_tasks(name):
    method, batch = method_and_batch(name)
    expected = method(batch, later()).losses
    target = batch.target.where(batch.target != method.task.ignore_index, 255)
    method.task = method.task.replace(ignore_index=255)
    for term, value in method(batch._replace(target=target), later()).losses.items():
        torch.testing.assert_close(value, expected[term])


def parts(method: Method, *prefixes: str) -> set[str]:
    return {name for name, _ in method.named_parameters() if name.startswith(prefixes)}


@pytest.mark.parametrize(
    ("padding", "stop_gradient", "net"),
    [
        (1, False, {}),
        (1, True, {}),
        (0, False, {"self_teacher_net": "BiFPN", "num_channels": 8}),
        (0, True, {"self_teacher_net": "BiFPN", "num_channels": 8}),
    ],
    ids=["halving", "halving, cut", "uneven", "uneven, cut"],
)
def test_soft_labels_and_maps_teach_the_student_alone_and_labels_the_self_teacher_too(padding, net, stop_gradient):
    task = dense_task()
    method = made("frskd", task, Movable(task, padding=padding), stop_gradient=stop_gradient, **net)
    losses = method(batch_for(task), later()).losses
    student, stages = parts(method, "student."), parts(method, "student.net.stem", "student.net.stage")
    reached = {term: set(names_reached(method, value)) for term, value in losses.items()}
    assert reached == {
        "task": student,
        "kd": student,
        "feature": stages,
        "teacher": parts(method, "self_teacher.") | (set() if stop_gradient else stages),
    }


@pytest.mark.parametrize("padding", [0, 1], ids=["uneven", "halving"])
def test_the_self_teacher_scores_at_the_size_of_the_finest_map_and_is_enlarged_bilinearly(padding):
    task = dense_task()
    method = made("frskd", task, Movable(task, padding=padding), taps=["net.stage2", "net.stage3"])
    batch = batch_for(task)
    with torch.no_grad():
        _, features = method.taps(batch.images)
        scores, refined = method.self_teacher(features)
        enlarged = method.both(batch.images).teacher_logits
    assert scores.shape == (ROWS, task.num_classes, *features[0].shape[2:]) != enlarged.shape
    assert [each.shape[2:] for each in refined] == [each.shape[2:] for each in features]
    np.testing.assert_allclose(enlarged.numpy(), slow.enlarged(scores.numpy(), SIZE), rtol=1e-9, atol=1e-12)


def test_exits_score_pixels_and_teach_what_lies_before_them():
    method, batch = method_and_batch("byot")
    with torch.no_grad():
        _, features = method.taps(batch.images)
        scores = [leave(feature)[0] for leave, feature in zip(method.exits, features[:-1], strict=True)]
    assert [each.shape for each in scores] == [(ROWS, 5, 4, 3)] * 2
    losses = method(batch).losses
    before, own = (
        parts(method, *(f"student.net.{stage}" for stage in ("stem", "stage1", "stage2"))),
        parts(method, "exits."),
    )
    classifiers = {name for name in own if ".fc." in name}
    reached = {term: set(names_reached(method, value)) for term, value in losses.items()}
    assert reached == {
        "task": parts(method, "student."),
        "exits": before | own,
        "kd": before | own,
        "feature": before | own - classifiers,
    }


PUBLISHED = {40: 0.010971, 45: 0.086294, 50: 0.36331, 55: 0.818731, 59: 1.0}  # by epoch, the first of 60 being 0


def test_the_imitations_sleep_for_two_thirds_and_then_grow_as_the_authors_do():
    method, batch = method_and_batch("frskd")
    full = method(batch, later(1.0)).losses
    for epoch in (0, 20, 38):
        early = method(batch, later((epoch + 1) / 60)).losses
        assert early["kd"] == early["feature"] == 0
        assert early["task"] == full["task"] > 0 and early["teacher"] == full["teacher"] > 0
    for epoch, weight in PUBLISHED.items():
        grown = method(batch, later((epoch + 1) / 60)).losses
        for term in ("kd", "feature"):
            assert (grown[term] / full[term]).item() == pytest.approx(weight, abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("segmentation", {"alpha": 1.0, "beta": 50.0, "temperature": 1.0, "warmup": 2 / 3, "ramp": 1 / 3}),
        ("classification", {"alpha": 2.0, "beta": 100.0, "temperature": 4.0, "warmup": 0.0, "ramp": 0.0}),
    ],
)
def test_each_task_has_the_papers_settings_for_it(kind, expected):
    task = dense_task(kind=kind)
    method = create_method("frskd", small_student(task), task)
    assert {name: getattr(method, name) for name in expected} == expected
    given = create_method("frskd", small_student(task), task, beta=7.0, ramp=0.2)
    assert settings_of(given) == settings_of(method) | {"beta": 7.0, "ramp": 0.2}


@pytest.mark.parametrize(
    ("settings", "terms"),
    [
        ({"alpha": 0.0}, {"task", "teacher", "feature"}),
        ({"beta": 0.0}, {"task", "teacher", "kd"}),
        ({"alpha": 0.0, "beta": 0.0}, {"task", "teacher"}),
    ],
    ids=["alpha", "beta", "both"],
)
def test_a_term_that_weighs_nothing_is_not_there_and_the_other_defaults_of_the_task_are_no_offence(settings, terms):
    method = made("frskd", dense_task(), **settings)
    assert method(batch_for(dense_task())).losses.keys() == terms


@pytest.mark.parametrize(
    ("kind", "settings", "idle"),
    [
        ("segmentation", {"alpha": 0.0, "temperature": 4.0}, r"temperature=4\.0 .*alpha=0"),  # classification's default
        ("segmentation", {"alpha": 0.0, "distil_void": True}, "distil_void=True .*alpha=0"),
        ("segmentation", {"alpha": 0.0, "beta": 0.0, "warmup": 0.1}, r"warmup=0\.1 .*alpha=0 and beta=0"),
        ("classification", {"distil_void": True}, "distil_void=True .* the task classification"),
    ],
)
def test_a_setting_without_effect_is_judged_by_the_defaults_of_the_task(kind, settings, idle):
    task = dense_task(kind=kind)
    with pytest.raises(ValueError, match=f"FRSKD: {idle}"):
        create_method("frskd", small_student(task), task, **settings)


WRONG_SHAPE = r"the network scores .*images as \(b, k\), and .* needs? \(b, k, 15, 11\)"


@every_method
def test_a_classifier_is_no_student_for_pixels(name):
    task, classifier = dense_task(), small_student(dense_task(kind="classification"))
    with pytest.raises(ValueError, match=WRONG_SHAPE):
        made(name, task, classifier)(batch_for(task))


@pytest.mark.parametrize("name", ["kd", "kd_tf_fd", "tf_kd_self"])
def test_a_classifier_has_no_soft_labels_for_pixels(name):
    with pytest.raises(ValueError, match=WRONG_SHAPE):
        made(name, dense_task(), teacher=small_student(dense_task(kind="classification")))


class SmallPyramid(nn.Module):
    """Six maps, of 12x10 down to 2x2 positions for images of 24x20, and scores of the first and the last."""

    STRIDES = (2, 2, 2, 2, 1, 1)

    def __init__(self, classes: int, channels: tuple[int, ...] = (4,) * 6) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, d, 3, stride=stride, padding=1), nn.BatchNorm2d(d), nn.ReLU())
            for c, d, stride in zip((3, *channels), channels, self.STRIDES, strict=False)
        )
        self.fc = nn.Conv2d(channels[0], classes, 1)
        self.tap_names = [f"levels.{i}" for i in range(len(channels))]

    def forward(self, images: Tensor) -> Tensor:
        maps = [images]
        for level in self.levels:
            maps.append(level(maps[-1]))
        deep = nn.functional.interpolate(maps[-1], maps[1].shape[2:])
        return nn.functional.interpolate(self.fc(maps[1] + deep), images.shape[2:], mode="bilinear")


def with_pyramid(**settings: Any) -> tuple[Any, Batch]:
    task = Task("segmentation", 5, (3, 24, 20))
    return made("frskd", task, SmallPyramid(5), self_teacher_net="pyramid", **settings), batch_for(task, rows=3)


@pytest.mark.parametrize("settings", [{}, {"distil_void": True, "temperature": 2.0}, {"beta": 0.0}], ids=str)
def test_the_papers_self_teacher_agrees_with_the_reference(settings):
    method, batch = with_pyramid(**settings)
    assert [tap.size for tap in method.taps] == [(12, 10), (6, 5), (3, 3), (2, 2), (2, 2), (2, 2)]
    agree(method(batch, later()).losses, frskds(method, Seen(method, batch)))


def test_the_papers_self_teacher_and_through_it_the_students_pyramid_learn_from_the_labels():
    method, batch = with_pyramid()
    losses = method(batch, later()).losses
    levels = parts(method, "student.levels.")
    assert set(names_reached(method, losses["teacher"])) == levels | parts(method, "self_teacher.")
    assert set(names_reached(method, losses["kd"])) == parts(method, "student.")
    assert set(names_reached(method, losses["feature"])) == levels
    method, batch = with_pyramid(stop_gradient=True)
    assert set(names_reached(method, method(batch, later()).losses["teacher"])) == parts(method, "self_teacher.")


def test_the_papers_self_teacher_takes_all_maps_of_the_pyramid():
    with pytest.raises(ValueError, match="takes all its maps; leave levels=2 out"):
        with_pyramid(levels=2)


def test_a_student_that_ends_in_a_pyramid_has_the_papers_self_teacher_unless_told_otherwise():
    task, student = Task("segmentation", 5, (3, 24, 20)), SmallPyramid(5)
    assert not isinstance(create_method("frskd", student, task).self_teacher, PyramidTeacher)
    student.pyramid_norm = {"eps": 0.25, "momentum": 0.5}
    teacher = create_method("frskd", student, task).self_teacher
    assert isinstance(teacher, PyramidTeacher) and (teacher.head[1].eps, teacher.head[1].momentum) == (0.25, 0.5)
    assert not isinstance(create_method("frskd", student, task, self_teacher_net="BiFPN").self_teacher, PyramidTeacher)


def test_the_papers_self_teacher_is_as_large_as_the_authors():
    teacher = PyramidTeacher([64] * 6, 21)
    assert sum(p.numel() for p in teacher.layers.parameters()) == 4_352
    assert sum(p.numel() for p in teacher.head.parameters()) == 196_629
    assert sum(p.numel() for p in teacher.parameters()) == 4_352 + 196_629


def test_the_papers_self_teacher_needs_equal_channels_and_pixels():
    task = Task("segmentation", 5, (3, 24, 20))
    with pytest.raises(ValueError, match=r"equally many channels.*\[4, 4, 6, 4, 4, 4\]"):
        create_method("frskd", SmallPyramid(5, (4, 4, 6, 4, 4, 4)), task, self_teacher_net="pyramid")
    task = dense_task(kind="classification")
    with pytest.raises(ValueError, match="scores pixels, and the task is classification"):
        create_method("frskd", small_student(task), task, self_teacher_net="pyramid")
