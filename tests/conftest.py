"""Small networks and batches that the tests share."""

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from selfdistill import Batch, Task
from selfdistill.method import Method
from selfdistill.methods import find_method
from selfdistill.models import build_student

CLASSES = 5


@pytest.fixture(autouse=True)
def own_seed():
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)


@contextmanager
def float64_by_default() -> Iterator[None]:
    """What is drawn or built in here is float64 from the start. In float32, processors draw different last digits."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, as in a ResNet."""

    def __init__(self, channels: int, width: int, stride: int, padding: int, norm: type[nn.Module]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=padding, bias=False)
        self.norm1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = norm(width)
        self.shortcut = nn.Conv2d(channels, width, 2 * (1 - padding) + 1, stride=stride, bias=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        return self.relu(y + self.shortcut(x))


class SmallResNet(nn.Module):
    """Three stages of one block, 8, 12 and 16 channels wide.

    With `padding` 1 they halve the size, rounding up: 16x16 images give 16, 8, 4. With 0 they lose the border:
    15x15 images give 15, 7, 3.
    """

    def __init__(self, classes: int = CLASSES, *, padding: int = 1, norm: type[nn.Module] = nn.BatchNorm2d) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), norm(8), nn.ReLU(inplace=True))
        self.stage1 = Block(8, 8, 1, 1, norm)
        self.stage2 = Block(8, 12, 2, padding, norm)
        self.stage3 = Block(12, 16, 2, padding, norm)
        self.fc = nn.Linear(16, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.stage3(self.stage2(self.stage1(self.stem(images)))).mean(dim=(2, 3)))


class SmallSegmenter(SmallResNet):
    """The same stages, with a score for every class at every pixel."""

    def forward(self, images: Tensor) -> Tensor:
        deep = self.stage3(self.stage2(self.stage1(self.stem(images))))
        scores = self.fc(deep.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return nn.functional.interpolate(scores, size=images.shape[2:], mode="bilinear", align_corners=False)


def channel_norm(channels: int) -> nn.GroupNorm:
    """A norm that sees each image alone."""
    return nn.GroupNorm(2, channels)


def small_task(kind: str = "classification", side: int = 16) -> Task:
    return Task(kind, CLASSES, (3, side, side), num_examples=32)


def small_student(task: Task, *, padding: int = 1, norm: type[nn.Module] = nn.BatchNorm2d, seed: int = 1) -> nn.Module:
    """A student for `task`, with weights that depend on `seed` alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = SmallResNet if task.kind == "classification" else SmallSegmenter
        return net(task.num_classes, padding=padding, norm=norm)


def small_batch(kind: type[Method], task: Task, rows: int = 8) -> Batch:
    """As many images, views and partners as the method asks for; every class is there."""
    draw = torch.Generator().manual_seed(2)
    shape = task.image_shape
    images = torch.randn(rows, *shape, generator=draw)
    positions = () if task.kind == "classification" else shape[1:]
    blocks = [-(-side // 4) for side in positions]  # as fine as the small student's deepest map
    target = torch.randint(task.num_classes, (rows, *blocks), generator=draw)
    for axis, side in enumerate(positions, 1):
        target = target.repeat_interleave(4, axis).narrow(axis, 0, side)
    target[:CLASSES] = torch.arange(CLASSES).reshape(-1, *[1] * len(positions))[:rows]
    if positions:
        target[0, 0] = task.void
    return Batch(
        images,
        target,
        row=torch.arange(rows),
        views=torch.randn(rows, kind.views, *shape, generator=draw) if kind.views else None,
        partners=torch.randn(rows, kind.partners, *shape, generator=draw) if kind.partners else None,
    )


def small_method(kind: type[Method], task: Task, *, student: nn.Module | None = None, seed: int = 3, **settings):
    """The method around a small student, in training mode, with a teacher where it needs one."""
    student = small_student(task) if student is None else student
    teacher = copy.deepcopy(small_teacher(kind.teacher_method, task)) if kind.needs_teacher else None
    if teacher is not None:
        teacher.to(next(student.parameters()).dtype)
    torch.manual_seed(seed)
    return kind(student, task, teacher=teacher, **settings).train()


@functools.cache
@float64_by_default()
def small_teacher(method: str, task: Task) -> nn.Module:
    """A small network, or the method that trained it where one is named, after 25 steps on one batch, in float64."""
    found = find_method(method or "baseline")
    trained, batch = small_method(found, task, student=small_student(task, seed=4), seed=5), small_batch(found, task)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.05, momentum=0.9)
    for _ in range(25):
        optimizer.zero_grad()
        trained(batch).loss.backward()
        optimizer.step()
    optimizer.zero_grad()
    return (trained if method else trained.student).eval()


def settled_in_double(method: Method) -> Method:
    """The method in float64, its norms and other vectors away from where they start."""
    method = method.double()
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return method


def names_reached(method: Method, term: Tensor) -> list[str]:
    """The parameters of the method to which a loss term sends a gradient."""
    method.zero_grad(set_to_none=True)
    term.backward(retain_graph=True)
    return [name for name, p in method.named_parameters() if p.grad is not None and p.grad.count_nonzero()]


def refused_student(name: str, **request) -> str:
    """The one sentence in which `build_student` refuses a request."""
    with pytest.raises(ValueError) as caught:
        build_student(name, **request)
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 500
    return sentence
