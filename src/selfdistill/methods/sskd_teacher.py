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
    """A head learns by itself which image of the batch was rotated, on top of a network that labels teach.

    The result can teach `sskd`. The head is a two-layer perceptron on the pooled deepest map. Its embeddings of the
    rotations by 90, 180 and 270 degrees learn to be closer, by cosine similarity, to the embedding of their own upright
    image than to those of the other images. Its gradient stops at the map: the network learns from labels alone, as in
    the paper.

    Departs from the paper: there the network is trained first and then frozen for the head. That is `joint` false, on a
    trained network. By default both learn in one run, which needs no trained network; its batch norms then see all
    rotations. The rotations turn one crop of an image; the authors crop each by itself. Their code divides the
    similarities by nothing, as the `temperature` of 1 does.
    """

    square_images = True
    cost = "4x the rows; a head of about 2 c^2 parameters behind a deepest map of c channels"

    joint: bool = hparam(True, "True: train network and head; False: the head alone, as in the paper")
    temperature: Positive = hparam(1.0, "divides the cosine similarities")

    def setup(self) -> None:
        self.head = projection_head(self.taps.channels[-1])
        if not self.joint:
            self.freeze_student()

    @property
    def uses_task_loss(self) -> bool:
        return self.joint

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits, embeddings = self.scores(mixing.rotations(batch.images))
        upright, cosines = logits[:: mixing.ROTATIONS], cosine_similarities(gather_with_grad(embeddings))
        terms = {"contrast": F.cross_entropy(cosines / self.temperature, source_columns(cosines))}
        if self.joint:
            terms["task"] = self.task.loss(upright, batch.target, batch.soft_target)
        return Step(terms, upright)

    def scores(self, images: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b d"]]:
        """Class scores, and the head's embeddings; its input is detached."""
        logits, features = self.taps(images)
        return logits, self.head(features[-1].detach().mean(dim=(2, 3)))


def projection_head(channels: int) -> nn.Sequential:
    """The head: two linear layers with a ReLU between them, as wide as the map has channels."""
    return nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels))


@losses.in_float32
def cosine_similarities(embeddings: Float[Tensor, "rows d"]) -> Float[Tensor, "rotated b"]:
    """The cosine of each rotated row with each upright row; `embeddings` are those of `mixing.rotations`."""
    embeddings = F.normalize(embeddings, dim=1)
    return drop_upright(embeddings) @ embeddings[:: mixing.ROTATIONS].T


def drop_upright(rows: Float[Tensor, "rows d"]) -> Float[Tensor, "rotated d"]:
    """The rows of `mixing.rotations` without the upright ones: three for each image."""
    return rows.unflatten(0, (-1, mixing.ROTATIONS))[:, 1:].flatten(0, 1)


def source_columns(cosines: Float[Tensor, "rotated b"]) -> Int64[Tensor, " rotated"]:
    """The column of the upright image from which each row was rotated.

    >>> source_columns(torch.zeros(6, 2)).tolist()
    [0, 0, 0, 1, 1, 1]
    """
    return torch.arange(cosines.shape[1], device=cosines.device).repeat_interleave(mixing.ROTATIONS - 1)


def gather_with_grad(rows: Float[Tensor, "b d"]) -> Float[Tensor, "all d"]:
    """The rows of all processes, for a loss over the whole batch; with one process, the same rows.

    Gradients reach this process's rows only, times the number of processes, because DDP averages gradients over them.
    """
    if not distributed.is_distributed():
        return rows
    gathered = distributed.gather_rows(rows)
    mine = distributed.local_rows(torch.arange(len(gathered), device=rows.device))
    scale = len(gathered) // len(rows)
    return gathered.index_copy(0, mine, rows.detach() + scale * (rows - rows.detach()))
