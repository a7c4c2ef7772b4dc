"""What a user writes under `mypy --strict`: `make lint` reads it, and nothing runs it."""

from pathlib import Path
from typing import assert_type

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import selfdistill as sd
from selfdistill.hyperparameters import Weight, hparam
from selfdistill.metrics.evaluation import Scores
from selfdistill.metrics.scores import ClassificationScores, SegmentationScores


class Pictures(Dataset[tuple[Tensor, int]]):
    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return torch.rand(3, 32, 32), i % 2


class Halved(sd.Method):
    weight: Weight = hparam(0.5, "weighs the labels")
    views = 1
    outputs = ("image", "pixel")

    def setup(self) -> None:
        self.head = nn.Linear(self.taps.channels[-1], describe(self.task))

    def forward(self, batch: sd.Batch, progress: Tensor | float = 0.0) -> sd.Step:
        logits, maps = self.taps(batch.images)
        assert_type(maps, list[Tensor])
        loss = self.task.loss(logits, batch.target, batch.soft_target)
        return sd.Step({"task": self.weight * loss, "kd": sd.losses.kd(logits, self.head(maps[-1]))}, logits)


class Stop(sd.Callback):
    def on_epoch_end(self, state: sd.TrainState) -> None:
        assert_type(state.step, int)


def describe(task: sd.Task) -> int:
    return task.num_classes


def train_loop(student: nn.Module, loader: DataLoader[tuple[Tensor, Tensor]]) -> sd.Method:
    task = assert_type(sd.Task("classification", 10, (3, 32, 32), class_weights=[1.0] * 10), sd.Task)
    method = sd.create_method("frskd", student, task, total_steps=10_000, beta=0.5).to("cpu")
    assert_type(method, sd.Method)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    for step_number, (images, target) in enumerate(loader):
        step = method(sd.Batch(images, target), step_number / 10_000)
        assert_type(step, sd.Step)
        assert_type(step.losses, dict[str, Tensor])
        assert_type(step.loss, Tensor)
        optimizer.step()
        method.after_step()
    assert_type(method.student, nn.Module)
    describe(method.task)
    return method


def train_and_compare() -> sd.TrainedRun:
    run = sd.train(data="digits", student="cifar:resnet8", method="frskd", epochs=20, callbacks=[Stop()])
    assert_type(run, sd.TrainedRun)
    assert_type(run.student, nn.Module)
    assert_type(run.classes, tuple[str, ...])
    assert_type(run.predict("photo.png")[0].label, str | None)
    sd.train("quick/digits", data=(Pictures(), Pictures()), student=nn.Linear(1, 2), method=Halved, out=Path("runs"))
    comparison = sd.compare(data="digits", methods=["baseline", Halved], seeds=[0, 1])
    assert_type(comparison, sd.Comparison)
    assert_type(comparison.markdown(), str)
    return sd.load(Path("runs") / "digits", trust=True)


def make_parts() -> None:
    student = assert_type(sd.build_student("cifar:resnet8", num_classes=10, image_shape=(3, 32, 32)), nn.Module)
    method = assert_type(sd.wrap(student, Halved, image_size=(32, 32), teacher=None, weight=0.1), sd.Method)
    assert_type(sd.fit(method, Pictures(), epochs=2, run="runs/mine"), sd.Result)
    assert_type(sd.load_student("runs/mine"), nn.Module)
    assert_type(sd.list_methods(), list[str])
    assert_type(sd.describe_method("frskd"), str)


def score(student: nn.Module, kind: str) -> float:
    pairs = [(torch.rand(2, 3, 32, 32), torch.tensor([0, 1]))]
    scores = assert_type(sd.evaluate(student, pairs, num_classes=10), ClassificationScores)
    assert_type(sd.evaluate(student, pairs, num_classes=10, kind="segmentation").miou, float)
    assert_type(sd.evaluate(student, pairs, num_classes=10, kind="segmentation"), SegmentationScores)
    assert_type(sd.evaluate(student, pairs, num_classes=10, kind=kind), Scores)
    return scores.top1


def list_mistakes(student: nn.Module, loader: DataLoader[Tensor]) -> None:
    """A checker that finds no error here calls these comments unused, which is an error too."""
    sd.train(data="digits", callback=[], resume=3)  # type: ignore[arg-type]
    sd.Task("classification", "10", (3, 32, 32))  # type: ignore[arg-type]
    sd.Task("classification", 10, (3, 32))  # type: ignore[arg-type]
    sd.create_method(student, "frskd")  # type: ignore[call-arg, arg-type]
    sd.build_student("cifar:resnet8", 10)  # type: ignore[call-arg]
    sd.wrap(student, "frskd", image_size="32")  # type: ignore[arg-type]
    sd.trian()  # type: ignore[attr-defined]
