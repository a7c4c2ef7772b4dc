"""Paying More Attention to Attention: Improving the Performance of CNNs via Attention Transfer (AT).

Zagoruyko, Komodakis. ICLR 2017. https://arxiv.org/abs/1612.03928
"""

from jaxtyping import Float
from torch import Tensor

from .. import losses
from ..hyperparameters import Positive, hparam
from ..method import Method
from ..modules.teachers import teaching_levels
from ..task import Batch, Step
from .tfd import pool_to_smaller


class AT(Method):
    """A frozen teacher's spatial attention teaches the student's: where a map is active, whatever its channels are.

    Attention is the channel mean of squares, scaled to unit norm per image. The deepest map learns from the teacher's
    deepest map, the next from the next, and so on. If two maps differ in size, the larger one is average-pooled first.
    The labels teach through plain cross-entropy. There is no soft-label loss.

    Departs from the paper: it writes a norm of the difference. The authors' code, and this one, take the mean of
    squares over batch and positions, summed over levels. The weight of 1000 belongs to that mean. A large map therefore
    weighs less than a small one.
    """

    outputs = ("image", "pixel")
    unlabeled_terms = ("attention",)
    targets = None
    needs_teacher = True
    cost = "one forward of the teacher per step, without gradients"

    beta: Positive = hparam(1000.0, "weighs the attention loss")

    def setup(self) -> None:
        self.teacher_levels = teaching_levels(len(self.taps), len(self.teacher_taps))

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        _, teacher_features = self.ask_teacher(batch.images)
        logits, features = self.taps(batch.images)
        teachers = [teacher_features[level] for level in self.teacher_levels]
        return Step(
            {
                "task": self.task.loss(logits, batch.target, batch.soft_target),
                "attention": self.beta * sum(map(attention_distance, features, teachers)),
            },
            logits,
        )


@losses.in_float32
def attention_distance(
    feature: Float[Tensor, "b c h w"],
    teacher_feature: Float[Tensor, "b d y x"],
) -> Float[Tensor, ""]:
    """`losses.attention_transfer` at the smaller of the two sizes; the teacher is detached."""
    return losses.attention_transfer(*pool_to_smaller(feature, teacher_feature))
