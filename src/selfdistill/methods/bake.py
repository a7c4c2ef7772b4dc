"""Self-distillation with Batch Knowledge Ensembling Improves ImageNet Classification (BAKE).

Ge, Zhang, Choi, Cheung, Zhao, Zhu, Wang, Zhao, Li. arXiv 2021. https://arxiv.org/abs/2104.13298
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Interval
from jaxtyping import Float
from torch import Tensor

from .. import losses
from ..distributed import gather_rows, local_rows
from ..features.pooling import global_average
from ..hyperparameters import Positive, Weight, hparam
from ..method import Method
from ..task import Batch, Step


class BAKE(Method):
    """The other images of the batch teach each image: their class probabilities, weighed by similarity, are its label.

    Each image comes with three other images of its class. All four learn from the label and from a soft label. Soft
    labels are the student's class probabilities, propagated over the batch along the affinities of its pooled deepest
    feature map. They are constants. With several processes the batch is that of all processes. Mixed labels are
    refused, because they have no single class.

    Departs from the paper: nothing known. The authors' batch size counts the positives and ours does not: their 128
    rows on CIFAR-100 are 32 images here. For TinyImageNet, Stanford Dogs and MIT67 they take one positive and `omega`
    0.9; a subclass with `positives = 1` does that.
    """

    positives = 3
    soft_targets = False
    cost = "4x the rows (three more images of the class for each image); a linear system with one unknown per row"

    weight: Weight = hparam(1.0, "lambda in the paper: weighs the soft label")
    omega: Annotated[float, Interval(gt=0, lt=1)] = hparam(
        0.5, "share of the others' knowledge in each propagation", used_with="weight"
    )
    temperature: Positive = hparam(4.0, "softens both distributions", used_with="weight")

    def setup(self) -> None:
        _ = self.taps  # found before training, not in its first step

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        images = torch.cat([batch.images, batch.positives.flatten(0, 1)])
        target = torch.cat([batch.target, batch.target.repeat_interleave(batch.positives.shape[1])])
        logits, features = self.taps(images)
        terms, teacher_logits = {"task": self.task.loss(logits, target)}, None
        if self.weight:
            rows = gather_rows(global_average(features[-1])), gather_rows(logits)
            teacher = local_rows(ensemble_labels(*rows, omega=self.omega, temperature=self.temperature))
            terms["kd"] = self.weight * losses.kl(logits, teacher, self.temperature)
            teacher_logits = teacher[: len(batch.images)].log()
        return Step(terms, logits[: len(batch.images)], teacher_logits)


@losses.in_float32
def ensemble_labels(
    teacher_features: Float[Tensor, "rows d"],
    teacher_logits: Float[Tensor, "rows k"],
    *,
    omega: float,
    temperature: float,
) -> Float[Tensor, "rows k"]:
    """Soft labels Q = (1 - omega) (I - omega A)^-1 softmax(logits / T); each row sums to 1.

    They are the limit of Q <- omega A Q + (1 - omega) softmax(logits / T). Row i of the affinity matrix A is the
    softmax of the cosine similarities of row i to all other rows. Everything is detached here. Source: Ge et al., 2021,
    https://arxiv.org/abs/2104.13298
    """
    normed = F.normalize(teacher_features.detach(), dim=1)
    identity = torch.eye(len(normed), dtype=normed.dtype, device=normed.device)
    affinity = (normed @ normed.T - 1e9 * identity).softmax(dim=1)
    probabilities = (teacher_logits.detach() / temperature).softmax(dim=1)
    # omega < 1 and the rows of A sum to 1, so there is a solution; `solve` would make the host wait to check that.
    return torch.linalg.solve_ex(identity - omega * affinity, (1 - omega) * probabilities).result
