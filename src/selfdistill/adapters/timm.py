"""timm: `SelfDistillTask` for `timm.task`, and timm's training script with a method of this package.

    python -m selfdistill.adapters.timm frskd ramp=1 -- train.py --data-dir IMAGES --model resnet18 ...

The script stays as it is. Words before `--` are the method, its hyper-parameters, and `teacher=` for methods that learn
from a teacher: a run folder, or `timm:NAME` with its published weights.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..method import Method
from ..methods import create_method, find_method
from ..task import Batch, Step
from ..tasks import Task
from . import require
from .state import get_training_state, load_training_state

OLDEST = "1.0.27"  # its tasks keep state in checkpoints, and own their moving average
require("timm", OLDEST, f"'timm>={OLDEST}'")

from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy  # noqa: E402
from timm.models import group_parameters  # noqa: E402
from timm.optim import auto_group_layers  # noqa: E402
from timm.task import ClassificationTask  # noqa: E402
from timm.utils import ModelEmaV3, unwrap_model  # noqa: E402


class Trainable(nn.Module):
    """What timm sees of a method: one call for each batch, and how its parameters are grouped."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, images: Tensor, target: Tensor, soft_target: Tensor | None, progress: Tensor) -> Step:
        return self.method(Batch(images, target, soft_target), progress)

    def no_weight_decay(self) -> set[str]:
        """The student's own list."""
        student: Any = self.method.student
        names = student.no_weight_decay() if hasattr(student, "no_weight_decay") else ()
        return {f"method.student.{name}" for name in names}

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """The student's layers by depth; what only training needs learns at the rate of the deepest ones."""
        student: Any = self.method.student
        if hasattr(student, "group_matcher"):
            layers = group_parameters(student, student.group_matcher(coarse=coarse), reverse=True)
        else:
            layers = auto_group_layers(student)
        deepest = max(layers.values(), default=0)
        return lambda name: layers.get(name.removeprefix("method.student."), deepest)


class SelfDistillTask(ClassificationTask):
    """A task of timm that trains a classifier by a method of this package.

    It is used as timm's own tasks are: give the optimizer `task.get_trainable_module()`, and validate, average and save
    `task.get_eval_model()`, which is the plain model. The task sees by itself when an optimizer has made a step.

    Args:
        model: The classifier to train, one of timm's or another with `num_classes`.
        criterion: The supervised loss, called with scores and class numbers, or with class probabilities where Mixup or
            CutMix made them. None: cross-entropy, or what `criterion_kwargs` says to timm.
        method: A name, as `selfdistill.list_methods` gives, or a subclass of `selfdistill.Method`.
        total_updates: How many optimizer steps training takes.
        image_shape: (channels, height, width) of the training images; None: what the model's `pretrained_cfg` says.
        teacher: The network to learn from, for methods that need one. It is shown the same images as the model.
        taps: Names of submodules whose outputs are the feature maps; None finds them.
        criterion_kwargs: As timm's `ClassificationTask` takes it.
        device: As timm's tasks take it.
        dtype: As timm's tasks take it.
        verbose: As timm's tasks take it.
        **hyperparameters: Values other than the defaults of the method.

    Raises:
        ValueError: for methods that need more than images and labels, and as `selfdistill.create_method`.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: Callable[[Tensor, Tensor], Tensor] | None = None,
        *,
        method: str | type,
        total_updates: int | None = None,
        image_shape: tuple[int, int, int] | None = None,
        teacher: nn.Module | None = None,
        taps: Sequence[str] | None = None,
        criterion_kwargs: dict[str, Any] | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        verbose: bool = True,
        **hyperparameters: Any,
    ) -> None:
        refuse_other_needs(method)
        if criterion is None and criterion_kwargs is None:
            criterion = nn.CrossEntropyLoss()
        settings = {} if criterion_kwargs is None else {"criterion_kwargs": criterion_kwargs}
        super().__init__(model, criterion, device=device, dtype=dtype, verbose=verbose, **settings)
        channels, height, width = image_shape or _find_image_shape(model)
        self.image_shape = (channels, height, width)
        task = Task("classification", _count_classes(model), self.image_shape, **adapt_criterion(self.criterion))
        trained = create_method(
            method, model, task, taps=taps, teacher=teacher, total_steps=total_updates, **hyperparameters
        )
        self.trainable_module = Trainable(trained if device is None else trained.to(device))
        self.total_updates, self.num_updates = total_updates, 0
        trained.on_optimizer_step(self.end_update)

    @property
    def method(self) -> Method:
        """The method, whose `student` is the model that was given."""
        return unwrap_model(self.trainable_module).method

    def end_update(self) -> None:
        """What follows an optimizer step; the task calls it by itself."""
        self.num_updates += 1
        self.method.after_step()

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The losses of one batch of images (b, c, h, w) and class numbers (b,), or class probabilities (b, k).

        "loss" is what is minimized, "output" the model's scores, and the method's terms have "_loss" behind their name.
        """
        if self.total_updates is None:
            raise ValueError(
                "SelfDistillTask does not know how long training takes; give total_updates=n, the number of optimizer "
                "steps, or set task.total_updates before the first batch"
            )
        if not self.num_updates and self.training and tuple(input.shape[1:]) != self.image_shape:
            raise ValueError(
                f"images are {tuple(input.shape[1:])}, and the task was made for {self.image_shape}; give "
                f"SelfDistillTask(image_shape=...) their shape"
            )
        is_mixed = target.is_floating_point()
        classes = target.argmax(dim=1) if is_mixed else target
        share = min(self.num_updates / self.total_updates, 1.0)
        self.method.begin_step(share)
        progress = torch.full((), share, device=input.device)
        step = self.trainable_module(input, classes, target if is_mixed else None, progress)
        terms = {f"{name}_loss": value.detach() for name, value in step.losses.items()}
        return {"loss": step.loss, "output": step.logits, **terms}

    def prepare_distributed(self, device_ids: list[Any] | None = None, **options: Any) -> "SelfDistillTask":
        """Wraps the method in DistributedDataParallel; some methods have parameters that not every step uses."""
        on_cpu = next(self.method.parameters()).device.type == "cpu"
        options = {"find_unused_parameters": True, **options}
        super().prepare_distributed(device_ids=None if on_cpu else device_ids, **options)
        return self

    def compile(self, backend: str = "inductor", mode: str | None = None, **options: Any) -> nn.Module:
        """Compiles the training step, and the model for validation."""
        compiled: list[Any] = [
            torch.compile(module, backend=backend, mode=mode, **options)
            for module in (self.trainable_module, self.method.student)
        ]
        self.trainable_module, self.eval_model = compiled
        return self.eval_model

    def setup_ema(
        self, decay: float = 0.9999, use_warmup: bool = False, device: torch.device | None = None, **options: Any
    ) -> nn.Module:
        """Starts a moving average of the model alone, without what only training needs."""
        self.trainable_module_ema = ModelEmaV3(
            self.method.student, decay=decay, use_warmup=use_warmup, device=device, **options
        )
        return self.trainable_module_ema

    def update_ema(self, step: int | None = None) -> None:
        """Moves the average, if there is one; `step`, where it is given, is the number of updates so far."""
        if step is not None:
            self.num_updates = step
        if self.has_ema():
            self.trainable_module_ema.update(self.method.student, step=step)

    def get_eval_model(self, module: nn.Module | None = None, ema: bool = False) -> nn.Module | None:
        """The plain model, or its average."""
        evaluated = super().get_eval_model(module=module, ema=ema)
        plain = None if evaluated is None else unwrap_model(evaluated)
        return plain.method.student if isinstance(plain, Trainable) else evaluated

    def get_clip_parameters(self, exclude_head: bool = False) -> Iterable[Tensor]:
        """The parameters whose gradients are clipped; adaptive clipping leaves out the model's classifier."""
        head = _find_classifier(self.method.student) if exclude_head else set()
        return [parameter for parameter in self.method.parameters() if id(parameter) not in head]

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict[str, Any]:
        """What only training needs, for the checkpoint; a teacher that was given is given again."""
        if ema:
            return {}
        return {"method": get_training_state(self.method), "num_updates": self.num_updates}

    def load_task_state(
        self, state: dict[str, Any] | None, strict: bool = True, module: nn.Module | None = None, ema: bool = False
    ) -> None:
        """Takes up what `get_task_state` gave; a checkpoint without it has the model alone."""
        if ema or not state or "method" not in state:
            return
        load_training_state(self.method, state["method"], strict=strict)
        self.num_updates = state["num_updates"]


def adapt_criterion(criterion: Callable[[Tensor, Tensor], Tensor]) -> dict[str, Any]:
    """A criterion of timm or torch as settings of a task.

    Cross-entropies become the task's own, which also takes the labels that some methods mix themselves.
    """
    if isinstance(criterion, SoftTargetCrossEntropy):
        return {}
    if isinstance(criterion, LabelSmoothingCrossEntropy):
        return {"label_smoothing": criterion.smoothing}
    if isinstance(criterion, nn.CrossEntropyLoss) and criterion.reduction == "mean" and criterion.ignore_index == -100:
        return {"class_weights": criterion.weight, "label_smoothing": criterion.label_smoothing}

    def loss(logits: Tensor, target: Tensor, soft_target: Tensor | None, ignore_index: int) -> Tensor:
        return criterion(logits, target if soft_target is None else soft_target)

    return {"loss": loss}


def refuse_other_needs(method: str | type) -> None:
    """Raises `ValueError` for a method that needs more than timm's loaders give."""
    chosen = find_method(method)
    needs = {"further views": chosen.views, "other images of its class": chosen.positives, "index": chosen.needs_index}
    if missing := [name for name, needed in needs.items() if needed]:
        raise ValueError(
            f"{chosen.__name__} needs the {' and '.join(missing)} of each image, and timm's loaders give images and "
            f"labels alone; train with `selfdistill train`, or in a loop of your own"
        )


def _count_classes(model: nn.Module) -> int:
    count = getattr(unwrap_model(model), "num_classes", None)
    if not isinstance(count, int):
        raise ValueError(f"{type(model).__name__} does not say its num_classes; set model.num_classes")
    return count


def _find_image_shape(model: nn.Module) -> tuple[int, int, int]:
    cfg = getattr(model, "pretrained_cfg", None) or {}
    if "input_size" not in cfg:
        raise ValueError(
            f"{type(model).__name__} does not say the size of its images; give SelfDistillTask(image_shape=...)"
        )
    channels, height, width = cfg["input_size"]
    return getattr(model, "in_chans", channels), height, width


def _find_classifier(student: Any) -> set[int]:
    """The ids of the classifier's parameters; of a network that does not name it, those of the last two."""
    if not hasattr(student, "get_classifier"):
        return {id(parameter) for parameter in [*student.parameters()][-2:]}
    classifier = student.get_classifier()
    heads = classifier if isinstance(classifier, tuple | list) else [classifier]
    return {id(parameter) for head in heads if head is not None for parameter in head.parameters()}


if __name__ == "__main__":
    from .timm_script import main

    main()
