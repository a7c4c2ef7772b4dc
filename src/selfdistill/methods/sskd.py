"""Knowledge Distillation Meets Self-Supervision (SSKD).

Xu, Liu, Li, Loy. ECCV 2020. https://arxiv.org/abs/2006.07114
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .. import distributed, losses, mixing
from ..hyperparameters import Positive, Share, Weight, hparam
from ..method import Method
from ..task import Batch, Step
from .sskd_teacher import everyones, origins, projection, similarities, turned


class SSKD(Method):
    """A frozen teacher shows the student its scores of upright and rotated images, and which of the batch look alike.

    The teacher is a run of `sskd_teacher`. The student gets a head of the same kind; the cosines between its embeddings
    of rotated and of upright images, as a distribution over the batch, imitate the teacher's. Where the teacher errs it
    still teaches, but only where it errs least: of the rows whose own class, or own image, it does not rank first, a
    share with the best ranks is kept, and every row that it gets right.

    Departs from the paper: which errors are kept is counted over the batch of all processes, and of equal ranks the
    earlier rows count as better, so that shapes do not depend on data. The two shares, the factor T^2 of the cosines'
    term, the head's width and the choice of rotations among the paper's transformations are our reading.
    """

    square_images = True
    needs_teacher = True
    teacher_method = "sskd_teacher"
    soft_targets = False
    cost = "4x the rows, through the teacher too; a head of about 2 c^2 parameters behind a deepest map of c channels"

    task_weight: Positive = hparam(0.1, "weighs the cross-entropy")
    kd_weight: Weight = hparam(0.9, "weighs the soft labels of upright images")
    transformation_weight: Weight = hparam(2.7, "weighs the soft labels of rotated images")
    similarity_weight: Positive = hparam(10.0, "weighs the likenesses within the batch")
    temperature: Positive = hparam(4.0, "softens the scores", used_with=("kd_weight", "transformation_weight"))
    similarity_temperature: Positive = hparam(0.5, "softens the cosines")
    transformation_share: Share = hparam(
        1.0, "of the teacher's wrong scores that teach", used_with="transformation_weight"
    )
    similarity_share: Share = hparam(0.75, "of the teacher's wrong likenesses that teach")

    def setup(self) -> None:
        self.refuse_other_classes()
        self.head = projection(self.taps.channels[-1])

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        rotated = mixing.rotations(batch.images)
        logits, features = self.taps(rotated)
        embeddings = self.head(features[-1].mean(dim=(2, 3)))
        teacher_logits, teacher_embeddings = self.ask_head(rotated)
        upright, teacher_upright = logits[:: mixing.ROTATIONS], teacher_logits[:: mixing.ROTATIONS]
        terms = {
            "task": self.task_weight * self.task.loss(upright, batch.target),
            "similarity": self.similarity_weight * self.likeness(embeddings, teacher_embeddings),
        }
        if self.kd_weight:
            terms["kd"] = self.kd_weight * losses.kd(upright, teacher_upright, self.temperature)
        if self.transformation_weight:
            own = distributed.gather_rows(batch.target).repeat_interleave(mixing.ROTATIONS - 1)
            scores, teacher_scores = turned(everyones(logits)), turned(everyones(teacher_logits))
            kd = selective_kd(scores, teacher_scores, own, self.transformation_share, temperature=self.temperature)
            terms["transformation"] = self.transformation_weight * kd
        return Step(terms, upright)

    @torch.no_grad()
    def ask_head(self, images: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b d"]]:
        """The teacher's scores and embeddings, constants."""
        return self.teacher.net.scores(images)

    def likeness(
        self, embeddings: Float[Tensor, "rows d"], teacher_embeddings: Float[Tensor, "rows e"]
    ) -> Float[Tensor, ""]:
        """How far the student's likenesses of turned to upright images are from the teacher's."""
        cosines, teacher_cosines = similarities(everyones(embeddings)), similarities(everyones(teacher_embeddings))
        own, temperature = origins(cosines), self.similarity_temperature
        return selective_kd(cosines, teacher_cosines, own, self.similarity_share, temperature=temperature)


def selective_kd(
    logits: Float[Tensor, "b k"],
    teacher_logits: Float[Tensor, "b k"],
    own: Int64[Tensor, " b"],
    share: float,
    *,
    temperature: float,
) -> Float[Tensor, ""]:
    """`losses.kd` over the rows that `taught_rows` keeps, as their mean; `own` is each row's right column."""
    kept = taught_rows(teacher_logits, own, share)
    here = kept[:, None]
    mean = losses.kd(logits.where(here, 0), teacher_logits.where(here, 0), temperature)  # equal rows are 0 apart
    return mean * len(kept) / kept.sum().clamp(min=1)


def taught_rows(teacher_logits: Float[Tensor, "b k"], own: Int64[Tensor, " b"], share: float) -> Bool[Tensor, " b"]:
    """Whether a row teaches: the teacher ranks its own column first, or its rank is among the wrong ones' best `share`.

    >>> scores = torch.tensor([[3.0, 1.0, 2.0]]).expand(3, -1)
    >>> taught_rows(scores, torch.tensor([0, 1, 2]), 0.5).tolist()
    [True, False, True]
    """
    above = (teacher_logits > teacher_logits.gather(1, own[:, None])).sum(dim=1)
    right = (above == 0).sum()
    count = right + ((len(own) - right) * share).floor()
    return above.argsort(stable=True).argsort() < count
