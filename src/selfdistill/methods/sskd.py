"""Knowledge Distillation Meets Self-Supervision (SSKD).

Xu, Liu, Li, Loy. ECCV 2020. https://arxiv.org/abs/2006.07114
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .. import distributed, losses, mixing
from ..features.pooling import global_average
from ..hyperparameters import Positive, Share, Weight, hparam
from ..method import Method
from ..task import Batch, Step
from .sskd_teacher import cosine_similarities, drop_upright, gather_with_grad, projection_head, source_columns


class SSKD(Method):
    """A frozen teacher shows the student its scores of upright and rotated images, and which images look alike.

    The teacher is a run of `sskd_teacher`. The student gets a head of the same kind. The cosine similarities
    between its embeddings of rotated and upright images form a distribution over the batch, which learns from the
    teacher's. A teacher that errs still teaches, but only where it errs least. Every row that it gets right is kept. Of
    the rows whose class, or source image, it does not rank first, a share with the best ranks is kept.

    Departs from the paper: the kept errors are counted over the batch of all processes, and of equal ranks the earlier
    row is better, so that shapes do not depend on data. The rotations turn one crop of an image; the authors crop each
    by itself.
    """

    square_images = True
    needs_teacher = True
    teacher_method = "sskd_teacher"
    soft_targets = False
    cost = "4x the rows, through the teacher too; a head of about 2 c^2 parameters behind a deepest map of c channels"

    task_weight: Positive = hparam(0.1, "weighs the cross-entropy")
    kd_weight: Weight = hparam(0.9, "weighs the soft labels of upright images")
    transformation_weight: Weight = hparam(2.7, "weighs the soft labels of rotated images")
    similarity_weight: Positive = hparam(10.0, "weighs the similarities within the batch")
    temperature: Positive = hparam(4.0, "softens the scores", used_with=("kd_weight", "transformation_weight"))
    similarity_temperature: Positive = hparam(0.5, "softens the similarities")
    transformation_share: Share = hparam(
        1.0, "share of the teacher's wrong scores that teach", used_with="transformation_weight"
    )
    similarity_share: Share = hparam(0.75, "share of the teacher's wrong similarities that teach")

    def setup(self) -> None:
        self.refuse_other_classes()
        self.head = projection_head(self.taps.channels[-1])

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        rotated = mixing.rotations(batch.images)
        teacher_logits, teacher_embeddings = self.ask_head(rotated)
        logits, features = self.taps(rotated)
        embeddings = self.head(global_average(features[-1]))
        upright, teacher_upright = logits[:: mixing.ROTATIONS], teacher_logits[:: mixing.ROTATIONS]
        terms = {
            "task": self.task_weight * self.task.loss(upright, batch.target),
            "similarity": self.similarity_weight * self.similarity_loss(embeddings, teacher_embeddings),
        }
        if self.kd_weight:
            terms["kd"] = self.kd_weight * losses.kd(upright, teacher_upright, self.temperature)
        if self.transformation_weight:
            target = distributed.gather_rows(batch.target).repeat_interleave(mixing.ROTATIONS - 1)
            scores = drop_upright(gather_with_grad(logits))
            teacher_scores = drop_upright(gather_with_grad(teacher_logits))
            kd = selective_kd(scores, teacher_scores, target, self.transformation_share, temperature=self.temperature)
            terms["transformation"] = self.transformation_weight * kd
        return Step(terms, upright)

    @torch.no_grad()
    def ask_head(self, images: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b d"]]:
        """The teacher's scores and embeddings, constants."""
        return self.teacher.net.scores(images)

    def similarity_loss(
        self, embeddings: Float[Tensor, "rows d"], teacher_embeddings: Float[Tensor, "rows e"]
    ) -> Float[Tensor, ""]:
        """Distance of the student's similarities of rotated to upright images from the teacher's."""
        cosines = cosine_similarities(gather_with_grad(embeddings))
        teacher_cosines = cosine_similarities(gather_with_grad(teacher_embeddings))
        target, temperature = source_columns(cosines), self.similarity_temperature
        return selective_kd(cosines, teacher_cosines, target, self.similarity_share, temperature=temperature)


def selective_kd(
    logits: Float[Tensor, "b k"],
    teacher_logits: Float[Tensor, "b k"],
    target: Int64[Tensor, " b"],
    share: float,
    *,
    temperature: float,
) -> Float[Tensor, ""]:
    """`losses.kd`, as a mean over the rows that `select_rows` keeps; `target` is the right column of each row."""
    kept = select_rows(teacher_logits, target, share)
    mask = kept[:, None]
    mean = losses.kd(logits.where(mask, 0), teacher_logits.where(mask, 0), temperature)  # equal rows add 0
    return mean * len(kept) / kept.sum().clamp(min=1)


def select_rows(teacher_logits: Float[Tensor, "b k"], target: Int64[Tensor, " b"], share: float) -> Bool[Tensor, " b"]:
    """Which rows teach: those where the teacher ranks `target` first, and the best-ranked `share` of the others.

    >>> scores = torch.tensor([[3.0, 1.0, 2.0]]).expand(3, -1)
    >>> select_rows(scores, torch.tensor([0, 1, 2]), 0.5).tolist()
    [True, False, True]
    """
    above = (teacher_logits > teacher_logits.gather(1, target[:, None])).sum(dim=1)
    right = (above == 0).sum()
    count = right + ((len(target) - right) * share).floor()
    return above.argsort(stable=True).argsort() < count
