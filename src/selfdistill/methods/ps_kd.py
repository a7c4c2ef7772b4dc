"""Self-Knowledge Distillation with Progressive Refinement of Targets (PS-KD).

Kim, Ji, Yoon, Hwang. ICCV 2021. https://arxiv.org/abs/2006.12000
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..distributed import gather_rows
from ..hyperparameters import Share, hparam
from ..method import Method
from ..modules.remembered import compute_dtype, recall, register_table
from ..task import Batch, Step


class PSKD(Method):
    """The student of one epoch ago teaches the student: its class probabilities soften the label of each image.

    The target is (1 - a) label + a past, where a grows from 0 during training. The past is the class probabilities, at
    temperature 1, that the student in training mode gave an augmentation of the image in the previous epoch. An image
    without a past, as in the first epoch, has its label alone as the target. Mixed images have no past and are refused.

    Where an image shows any number of classes, each class has its own past: the probability that the image shows it.

    The past of large sets, from 67 million probabilities on, is kept in half precision. Measured on digits, the losses
    of the second epoch, the first that has a past, moved by at most a 100,000th of themselves (bfloat16: a 200th).

    Departs from the paper: several labels for an image are no case of it. And a is `alpha` times the share of training
    done and grows with every step. The paper's is constant within an epoch, at the value that ours reaches at the end
    of the epoch. So ours is half an epoch behind, on average.
    """

    needs_index = True
    remembered = ("past",)
    targets = ("class", "multi_label")
    soft_targets = False
    counts_batch_labels = False
    cost = "state: a row of class probabilities for each training image (20 MB for CIFAR-100, 2.6 GB for ImageNet)"

    alpha: Share = hparam(0.8, "share of the past in the target at the end of training")

    past: Tensor  # (num_examples, num_classes), the last class probabilities of each image; 0 where not seen yet

    def setup(self) -> None:
        register_table(self, "past", self.task.num_examples, self.task.num_classes)

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits = self.student(batch.images)
        label = self.encode(batch.target)
        past = recall(self.past, batch.index, otherwise=label)
        share = self.alpha * progress
        soft_target = (1 - share) * label + share * past
        self.past[gather_rows(batch.index)] = gather_rows(self.find_probabilities(logits).to(self.past.dtype))
        return Step({"task": self.task.loss(logits, batch.target, soft_target)}, logits)

    def encode(self, target: Tensor) -> Float[Tensor, "b k"]:
        """The labels as probabilities; those that are not known among several count for nothing in the loss."""
        of_several = self.task.target == "multi_label"
        label = target.clamp(min=0) if of_several else F.one_hot(target, self.task.num_classes)
        return label.to(compute_dtype(self.past))

    def find_probabilities(self, logits: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        """Of each class, above 0, as a row of zeros is an image without a past."""
        if self.task.target == "multi_label":
            return logits.to(compute_dtype(self.past)).sigmoid().clamp(min=torch.finfo(self.past.dtype).tiny)
        return logits.softmax(dim=1, dtype=compute_dtype(self.past))
