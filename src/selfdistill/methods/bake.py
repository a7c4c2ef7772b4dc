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
from ..hyperparameters import Positive, Weight, hparam
from ..method import Method
from ..task import Batch, Step


class BAKE(Method):
    """The other images of the batch teach each image: what the student says of them, weighed by how alike they look.

    Each image brings three others of its class, and all four are trained on the label and on a soft label. Soft labels
    are what the student says, spread over the batch to and fro along the affinities of the pooled deepest feature map;
    they are constants. With several processes they spread over the rows of all. Mixed labels are refused: they have no
    single class to share.

    Departs from the paper: nothing known. The authors' batch sizes count the positives and ours do not: their 128 rows
    on CIFAR-100 are 32 images here. TinyImageNet, Stanford Dogs and MIT67 had one positive and `omega` 0.9; a subclass
    with `positives = 1` gives that.
    """

    positives = 3
    soft_targets = False
    cost = "4x the rows (three more images of the class for each image); a linear system of as many unknowns as rows"

    weight: Weight = hparam(1.0, "lambda in the paper: weighs the soft label")
    omega: Annotated[float, Interval(gt=0, lt=1)] = hparam(
        0.5, "share of the others' knowledge, each time it spreads", used_with="weight"
    )
    temperature: Positive = hparam(4.0, "softens both distributions", used_with="weight")

    def setup(self) -> None:
        _ = self.taps  # found here, not amid training

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        images = torch.cat([batch.images, batch.positives.flatten(0, 1)])
        target = torch.cat([batch.target, batch.target.repeat_interleave(batch.positives.shape[1])])
        logits, features = self.taps(images)
        terms = {"task": self.task.loss(logits, target)}
        if self.weight:
            rows = gather_rows(features[-1].mean(dim=(2, 3))), gather_rows(logits)
            teacher = local_rows(ensembled(*rows, omega=self.omega, temperature=self.temperature))
            terms["kd"] = self.weight * losses.kl(logits, teacher, self.temperature)
        return Step(terms, logits[: len(batch.images)])


@losses.in_float32
def ensembled(
    teacher_features: Float[Tensor, "rows d"],
    teacher_logits: Float[Tensor, "rows k"],
    *,
    omega: float,
    temperature: float,
) -> Float[Tensor, "rows k"]:
    """Soft labels Q = (1 - omega) (I - omega A)^-1 softmax(logits / T), constants; each row sums to 1.

    They are the limit of Q <- omega A Q + (1 - omega) softmax(logits / T). Row i of the affinity A is the softmax of
    the cosine similarities of row i to all others, 0 to itself. Source: Ge et al., 2021,
    https://arxiv.org/abs/2104.13298
    """
    normed = F.normalize(teacher_features.detach(), dim=1)
    itself = torch.eye(len(normed), dtype=normed.dtype, device=normed.device)
    affinity = (normed @ normed.T - 1e9 * itself).softmax(dim=1)
    said = (teacher_logits.detach() / temperature).softmax(dim=1)
    # It can always be solved, as omega < 1 and rows of A sum to 1; `solve` would wait for the device to ask.
    return torch.linalg.solve_ex(itself - omega * affinity, (1 - omega) * said).result
