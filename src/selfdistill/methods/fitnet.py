"""FitNets: Hints for Thin Deep Nets.

Romero, Ballas, Kahou, Chassang, Gatta, Bengio. ICLR 2015. https://arxiv.org/abs/1412.6550
"""

from jaxtyping import Float
from torch import Tensor, nn

from .. import losses
from ..features.extractor import Tap
from ..hyperparameters import Count, Positive, hparam
from ..method import Method
from ..modules.blocks import enlarge
from ..modules.teachers import teaching_levels
from ..task import Batch, Step


class FitNet(Method):
    """One feature map of a frozen teacher is a hint: the student's map of the same depth learns to predict it.

    A regressor, which only training has, brings the student's map to the teacher's channels and size. Levels are
    matched from the deepest upwards. The labels teach through plain cross-entropy. There is no soft-label loss.

    Departs from the paper: it first trains the layers up to the hint alone, and then the whole student with soft
    labels. Here hint and labels teach together. The distance is a mean of squares with the weight 100, as in later
    comparisons on CIFAR-100. The regressor is theirs too: a strided 3x3 convolution if the student's map is twice as
    large as the teacher's, a transposed convolution if it is half as large, else a convolution whose kernel removes the
    difference in size. They do not cover maps that are smaller by another ratio; these are resized here by nearest
    neighbor.
    """

    targets = None
    needs_teacher = True
    cost = "one forward of the teacher per step, without gradients, and one convolution with batch norm"

    weight: Positive = hparam(100.0, "weighs the hint")
    level: Count | None = hparam(None, "the student's map that learns; 1 is the shallowest, None the middle (2 of 4)")
    rectified: bool = hparam(True, "a ReLU ends the regressor; False for teachers with negative maps")

    def setup(self) -> None:
        levels = len(self.taps)
        if self.level is not None and self.level > levels:
            raise ValueError(f"level={self.level} was asked for and the student has {levels} feature maps")
        self.student_level = (levels + 1) // 2 - 1 if self.level is None else self.level - 1
        self.teacher_level = teaching_levels(levels, len(self.teacher_taps))[self.student_level]
        tap, teacher_tap = list(self.taps)[self.student_level], list(self.teacher_taps)[self.teacher_level]
        self.regressor = Regressor(tap, teacher_tap, rectified=self.rectified)

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        _, teacher_features = self.ask_teacher(batch.images)
        logits, features = self.taps(batch.images)
        hint = teacher_features[self.teacher_level]
        terms = {
            "task": self.task.loss(logits, batch.target, batch.soft_target),
            "hint": self.weight * losses.hint(self.regressor(features[self.student_level], hint), hint),
        }
        return Step(terms, logits)


class Regressor(nn.Module):
    """Brings a map of the student to the channels and size of the teacher's: convolution, batch norm, ReLU."""

    def __init__(self, tap: Tap, teacher_tap: Tap, *, rectified: bool) -> None:
        super().__init__()
        self.conv = resizing_convolution(tap, teacher_tap)
        self.norm = nn.BatchNorm2d(teacher_tap.channels)
        self.end = nn.ReLU() if rectified else nn.Identity()

    def forward(self, feature: Float[Tensor, "b c _h _w"], hint: Float[Tensor, "b d h w"]) -> Float[Tensor, "b d h w"]:
        """Only the size of `hint` is used."""
        return self.end(self.norm(enlarge(self.conv(feature), hint)))


def resizing_convolution(tap: Tap, teacher_tap: Tap) -> nn.Module:
    """A convolution to the teacher's channels and, if possible, its size. No bias, because a batch norm follows."""
    channels = tap.channels, teacher_tap.channels
    sides = list(zip(tap.size, teacher_tap.size, strict=True))
    if all(side == 2 * teacher_side for side, teacher_side in sides):
        return nn.Conv2d(*channels, 3, stride=2, padding=1, bias=False)
    if all(2 * side == teacher_side for side, teacher_side in sides):
        return nn.ConvTranspose2d(*channels, 4, stride=2, padding=1, bias=False)
    if all(side >= teacher_side for side, teacher_side in sides):
        return nn.Conv2d(*channels, tuple(1 + side - teacher_side for side, teacher_side in sides), bias=False)
    return nn.Conv2d(*channels, 1, bias=False)
