"""transformers: a `Trainer` that trains image classifiers and segmenters by a method of this package."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..method import Method
from ..methods import create_method
from ..models import ScoresAlone
from ..task import Batch
from ..tasks import Task
from . import require
from .state import get_training_state, load_training_state

OLDEST = "4.45.0"
require("transformers", OLDEST, '"selfdistill[transformers]"')

from transformers import PreTrainedModel, Trainer, TrainingArguments, set_seed  # noqa: E402

METHOD_STATE = "selfdistill_method.pt"  # of a checkpoint: what only training needs
INPUTS = ["pixel_values", "labels", "label", "label_ids", "index", "views", "positives"]  # columns of a data set


class SelfDistillTrainer(Trainer):
    """A `Trainer` for image classifiers and segmenters that are trained by a method of this package.

    It evaluates and saves the plain model, as `Trainer` does without a method; `trainer.method` trains it. Data sets
    yield `pixel_values` and `labels`, and `index`, `views` or `positives`, as in `selfdistill.Batch`, for methods that
    need them. Losses of micro-batches are averaged, each term is logged by its name, and checkpoints hold what only
    training needs beside the model.

    Args:
        model: A model of transformers that returns `logits` for images.
        args: As `Trainer` takes it. `label_smoothing_factor` is that of the supervised loss.
        method: A name, as `selfdistill.list_methods` gives, or a subclass of `selfdistill.Method`.
        hyperparameters: Values other than the defaults of the method.
        image_shape: (channels, height, width) of `pixel_values`; None: as the model's configuration says.
        teacher: The network to learn from, for methods that need one; it may be a model of transformers.
        taps: Names of the model's submodules whose outputs are the feature maps; None finds them.
        loss: The supervised loss, as `selfdistill.Task` takes it; None: cross-entropy.
        **settings: Further arguments of `Trainer`.

    Raises:
        ValueError: for models, data and settings that do not go together, and as `selfdistill.create_method`.
    """

    model: Any  # Trainer's: the method

    def __init__(
        self,
        model: PreTrainedModel,
        args: TrainingArguments | None = None,
        *,
        method: str | type[Method],
        hyperparameters: dict[str, Any] | None = None,
        image_shape: tuple[int, int, int] | None = None,
        teacher: nn.Module | None = None,
        taps: Sequence[str] | None = None,
        loss: Any = None,
        **settings: Any,
    ) -> None:
        args = args or TrainingArguments("trainer_output")
        _refuse_settings(model, args, settings)
        set_seed(args.seed)
        task = infer_task(
            model, image_shape, count_examples(settings.get("train_dataset")), loss, args.label_smoothing_factor
        )
        wrapped = create_method(
            method,
            ScoresAlone(model),
            task,
            taps=None if taps is None else [f"network.{name}" for name in taps],
            teacher=ScoresAlone(teacher) if isinstance(teacher, PreTrainedModel) else teacher,
            total_steps=count_steps(args, settings.get("train_dataset")),
            **(hyperparameters or {}),
        )
        wrapped.config = model.config  # where Trainer and its trackers look for it
        super().__init__(wrapped, args, **settings)
        self.loss_is_scaled_for_ga = False  # by it and the next: the mean over micro-batches is Trainer's to take
        self.model_accepts_loss_kwargs = False
        self.label_names = ["labels"] if args.label_names is None else args.label_names
        self._terms: dict[str, Tensor] = {}  # summed since they were last logged
        self._calls = 0
        self.method.on_optimizer_step(self.method.after_step)

    @property
    def method(self) -> Method:
        """The method; `method.student.network` is the plain model."""
        return self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=True)

    @property
    def plain_model(self) -> PreTrainedModel:
        """The model that was given, which ships."""
        return self.method.student.network

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The method's loss; that of the plain model where it is evaluated."""
        if isinstance(model, PreTrainedModel):
            return super().compute_loss(model, inputs, return_outputs=return_outputs)
        progress = self.state.global_step / self.state.max_steps if self.state.max_steps > 0 else 0.0
        images, target = inputs["pixel_values"], inputs["labels"]
        target = target.long() if self.method.task.target != "class" else target  # transformers has floats
        extra = {name: inputs[name] for name in ("index", "views", "positives") if name in inputs}
        share = min(progress, 1.0)
        self.method.begin_step(share)
        step = model(Batch(images, target, **extra), torch.full((), share, device=images.device))
        for name, value in step.losses.items():
            self._terms[name] = self._terms.get(name, 0) + value.detach()
        self._calls += 1
        return (step.loss, {"loss": step.loss, "logits": step.logits}) if return_outputs else step.loss

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **settings: Any) -> Any:
        """What the plain model answers."""
        kept = {name: value for name, value in inputs.items() if name in ("pixel_values", "labels")}
        with self.accelerator.autocast():
            return super().prediction_step(self.plain_model, kept, *args, **settings)

    def log(self, logs: dict[str, float], *args: Any, **settings: Any) -> None:
        """Adds the mean of each loss term to the training loss."""
        if "loss" in logs and self._calls:
            logs |= {f"{name}_loss": (value / self._calls).item() for name, value in self._terms.items()}
            self._terms, self._calls = {}, 0
        super().log(logs, *args, **settings)

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns = INPUTS

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        with self._as_plain():
            super()._save(output_dir)
        if self.args.should_save:
            torch.save(get_training_state(self.method), os.path.join(output_dir or self.args.output_dir, METHOD_STATE))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self._load_plain(resume_from_checkpoint)
        file = os.path.join(resume_from_checkpoint, METHOD_STATE)
        if os.path.exists(file):
            load_training_state(self.method, torch.load(file, map_location="cpu", weights_only=True))

    def _load_best_model(self) -> None:
        self._load_plain(self.state.best_model_checkpoint)

    def _load_plain(self, folder: str) -> None:
        """Takes the weights in a folder, whose names may be those of an older transformers."""
        saved = type(self.plain_model).from_pretrained(folder)
        self.plain_model.load_state_dict(saved.state_dict())

    @contextmanager
    def _as_plain(self) -> Iterator[None]:
        """Lets `Trainer` save the plain model, which it takes for the one that it trains."""
        trained, self.model = self.model, self.plain_model
        try:
            yield
        finally:
            self.model = trained


def infer_task(
    model: PreTrainedModel,
    image_shape: tuple[int, int, int] | None,
    num_examples: int,
    loss: Any,
    label_smoothing: float,
) -> Task:
    """What a model learns, by its class and its configuration; raises `ValueError` where these do not say it."""
    config, name = model.config, type(model).__name__
    kind, ignore_index = "classification", -100
    if "Segmentation" in name:
        kind, ignore_index = "segmentation", getattr(config, "semantic_loss_ignore_index", 255)
    elif config.problem_type == "multi_label_classification":
        kind = "multilabel"
    if image_shape is None:
        size = getattr(config, "image_size", None)
        if not size:
            raise ValueError(f"the configuration of {name} does not say its image_size; give image_shape=(3, 224, 224)")
        height, width = (size, size) if isinstance(size, int) else size
        image_shape = (getattr(config, "num_channels", 3), height, width)
    return Task(
        kind, config.num_labels, image_shape, num_examples, ignore_index, loss=loss, label_smoothing=label_smoothing
    )


def count_examples(dataset: Any) -> int:
    """How many images a data set holds; 0 where it does not say."""
    return len(dataset) if hasattr(dataset, "__len__") else 0


def count_steps(args: TrainingArguments, dataset: Any) -> int | None:
    """How many optimizer steps training takes; None where the data set does not say its length."""
    if args.max_steps > 0:
        return args.max_steps
    images = args.per_device_train_batch_size * args.world_size * args.gradient_accumulation_steps
    return math.ceil(args.num_train_epochs * math.ceil(count_examples(dataset) / images)) or None


def _refuse_settings(model: Any, args: TrainingArguments, settings: dict[str, Any]) -> None:
    """Raises `ValueError` for what would have no effect, or cannot be."""
    if not isinstance(model, PreTrainedModel):
        raise ValueError(f"SelfDistillTrainer takes a model of transformers, not a {type(model).__name__}")
    alternatives = {
        "model_init": "it is one model whose maps the method reads; give model=",
        "compute_loss_func": "the method computes the loss; give loss=, which it uses",
    }
    for name, reason in alternatives.items():
        if settings.get(name) is not None:
            raise ValueError(f"SelfDistillTrainer takes no {name}: {reason}")
    if any(getattr(args, name, False) for name in ("gradient_checkpointing", "activation_checkpointing")):
        raise ValueError(
            "SelfDistillTrainer takes no gradient_checkpointing; call model.gradient_checkpointing_enable() before"
        )
    if args.n_gpu > 1:
        raise ValueError(
            f"SelfDistillTrainer trains on one GPU in each process, and this one sees {args.n_gpu}; start "
            "it by torchrun, or set CUDA_VISIBLE_DEVICES=0"
        )
