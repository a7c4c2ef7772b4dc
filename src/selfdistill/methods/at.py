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
from .tfd import at_one_size


class AT(Method):
    """A frozen teacher's spatial attention teaches the student's: where a map is active, whatever its channels are.

    Attention is the channel mean of squares, scaled to unit norm per image. The deepest level learns from the
    teacher's deepest and so on upwards; where two maps differ in size, the larger is average-pooled first. The labels
    teach by plain cross-entropy; there is no soft-label loss.

    Departs from the paper: it writes a norm of the difference; as in the authors' code the distance is the mean of
    squares over batch and positions, to which the weight of 1000 belongs, summed over levels. A fine level therefore
    weighs less than a coarse one.
    """

    outputs = ("image", "pixel")
    needs_teacher = True
    cost = "one forward of the teacher per step, without gradients"

    beta: Positive = hparam(1000.0, "weighs the attention loss")

    def setup(self) -> None:
        self.taught_by = teaching_levels(len(self.taps), len(self.teacher_taps))

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits, features = self.taps(batch.images)
        _, teacher_features = self.ask_teacher(batch.images)
        teachers = [teacher_features[level] for level in self.taught_by]
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
    """`losses.attention_transfer` at the smaller of the two maps' sizes; the teacher is a constant."""
    return losses.attention_transfer(*at_one_size(feature, teacher_feature))
