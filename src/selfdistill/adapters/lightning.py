"""Lightning: a mixin by which a module of yours trains by a method of this package.

    class Classifier(SelfDistillMixin, lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.use_method(create_method("frskd", student, task, total_steps=n))

It serves `lightning` and `pytorch_lightning`, and imports neither.
"""

from typing import Any

import torch
from torch import Tensor

from ..method import Method
from ..task import Step, as_batch


class SelfDistillMixin:
    """Trains `self.method` in a LightningModule: the training step, its progress, and what follows optimizer steps.

    `training_step` takes batches of (images, target), or `selfdistill.Batch`; `distill` serves a `training_step` of
    your own. Optimizers get `self.method.parameters()`, and `self.method.student` is the plain network. Checkpoints
    hold all of the method.
    """

    method: Method
    trainer: Any  # this and the next two are Lightning's
    global_step: int
    log_dict: Any

    def use_method(self, method: Method) -> None:
        """For `__init__`: trains by this method from now on, and calls its `after_step` behind each optimizer step."""
        if not hasattr(self, "log_dict"):
            raise ValueError(
                f"{type(self).__name__} is no LightningModule; write class "
                f"{type(self).__name__}(SelfDistillMixin, LightningModule)"
            )
        self.method = method
        method.on_optimizer_step(method.after_step)

    def distill(self, batch: Any) -> Step:
        """The method's losses for a batch, at this moment of training.

        Raises `ValueError` where Lightning does not know how many steps training takes.
        """
        total = self.trainer.estimated_stepping_batches
        if total == float("inf"):
            raise ValueError("the length of training is not known; give the Trainer max_epochs or max_steps")
        batch = as_batch(batch)
        share = min(self.global_step / total, 1.0)
        self.method.begin_step(share)
        return self.method(batch, torch.full((), share, device=batch.images.device))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Lightning's: the loss of a batch; each term is logged by its name."""
        step = self.distill(batch)
        self.log_dict({f"{name}_loss": value.detach() for name, value in step.losses.items()})
        return step.loss
