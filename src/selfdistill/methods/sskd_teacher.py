"""Knowledge Distillation Meets Self-Supervision: training of the teacher (SSKD).

Xu, Liu, Li, Loy. ECCV 2020. https://arxiv.org/abs/2006.07114
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from .. import distributed, losses, mixing
from ..hyperparameters import Positive, hparam
from ..method import Method
from ..task import Batch, Step


class SSKDTeacher(Method):
    """A head learns by itself to tell which image of the batch a rotated one was, from a network that labels teach.

    What comes out can teach `sskd`. The head is a two-layer perceptron on the pooled deepest map; its embeddings of
    the rotations by 90, 180 and 270 degrees are to be nearer, by their cosine, to that of their own upright image than
    to those of the others. Its gradient ends there: the network learns from labels alone, as the paper's does.

    Departs from the paper: there the network is trained first and frozen for the head, which is `joint` false, on a
    trained network. By default both learn in one run, so that a fresh network is of use; its batch norms then see
    all rotations. The temperature, the head's width (the map's channels) and the choice of rotations among the paper's
    transformations are our reading.
    """

    square_images = True
    cost = "4x the rows; a head of about 2 c^2 parameters behind a deepest map of c channels"

    joint: bool = hparam(
        True, "True: network and head in one run; False: the head of a frozen network, the paper's order"
    )
    temperature: Positive = hparam(0.5, "divides the cosines")

    def setup(self) -> None:
        self.head = projection(self.taps.channels[-1])
        if not self.joint:
            self.freeze_student()

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits, embeddings = self.scores(mixing.rotations(batch.images))
        upright, cosines = logits[:: mixing.ROTATIONS], similarities(everyones(embeddings))
        terms = {"contrast": F.cross_entropy(cosines / self.temperature, origins(cosines))}
        if self.joint:
            terms["task"] = self.task.loss(upright, batch.target, batch.soft_target)
        return Step(terms, upright)

    def scores(self, images: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b d"]]:
        """Class scores, and the head's embeddings of maps that are constants to it."""
        logits, features = self.taps(images)
        return logits, self.head(features[-1].detach().mean(dim=(2, 3)))


def projection(channels: int) -> nn.Sequential:
    """The head that embeds pooled maps: two linear layers with a ReLU between, as wide as the map."""
    return nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels))


@losses.in_float32
def similarities(embeddings: Float[Tensor, "rows d"]) -> Float[Tensor, "turned b"]:
    """The cosine of each turned row with each upright one; `embeddings` are of `mixing.rotations`."""
    embeddings = F.normalize(embeddings, dim=1)
    return turned(embeddings) @ embeddings[:: mixing.ROTATIONS].T


def turned(rows: Float[Tensor, "rows d"]) -> Float[Tensor, "turned d"]:
    """Of what was computed for `mixing.rotations`, the rows but the upright ones, three to an image."""
    return rows.unflatten(0, (-1, mixing.ROTATIONS))[:, 1:].flatten(0, 1)


def origins(cosines: Float[Tensor, "turned b"]) -> Int64[Tensor, " turned"]:
    """The column of each turned row's own image.

    >>> origins(torch.zeros(6, 2)).tolist()
    [0, 0, 0, 1, 1, 1]
    """
    return torch.arange(cosines.shape[1], device=cosines.device).repeat_interleave(mixing.ROTATIONS - 1)


def everyones(rows: Float[Tensor, "b d"]) -> Float[Tensor, "all d"]:
    """The rows of all processes, for a loss over the whole batch; with one process, the rows.

    Gradients reach the own rows alone, times the number of processes, as the engine averages gradients over them.
    """
    if not distributed.is_distributed():
        return rows
    gathered = distributed.gather_rows(rows)
    mine = distributed.local_rows(torch.arange(len(gathered), device=rows.device))
    scale = len(gathered) // len(rows)
    return gathered.index_copy(0, mine, rows.detach() + scale * (rows - rows.detach()))
