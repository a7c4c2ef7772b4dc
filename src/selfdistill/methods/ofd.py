"""A Comprehensive Overhaul of Feature Distillation (OFD).

Heo, Kim, Yun, Park, Kwak, Choi. ICCV 2019. https://arxiv.org/abs/1904.01866
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .. import losses
from ..features.before_relu import BeforeReLU
from ..features.extractor import Tap
from ..features.probe import DryRun
from ..features.stages import Output
from ..hyperparameters import Positive, hparam
from ..method import Method
from ..modules.blocks import enlarge
from ..modules.strides import PROJECTIONS
from ..modules.teachers import teaching_levels
from ..task import Batch, Step
from .frskd import connector


class OFD(Method):
    """A frozen teacher's feature maps, as they are before their ReLU, teach the student's at every level.

    Behind a 1x1 convolution with batch norm the student's map learns to match the teacher's map. What the teacher's
    ReLU would remove counts little: all values below a margin are equal, and a student below a negative target has no
    loss. The margin of a channel is the mean of its negative values, computed from the weight and bias of the teacher's
    trained batch norm; in a residual block it is the batch norm of the residual branch. Every level has half the weight
    of the next deeper level. Levels are matched from the deepest upwards. If sizes differ, the student's map is resized
    by nearest neighbor.

    A map is read before the `nn.ReLU` that it ends in. If it ends otherwise (the sum of a linear bottleneck, another
    activation, a ReLU that is not a module, or one module for several stages), it is read as it is. A teacher is
    refused if no batch norm with the channels of a map runs before that map, as in vision transformers.

    Departs from the paper: nothing known in the objective. The authors' code leaves the teacher in training mode, where
    its batch norms use the batch's statistics and keep updating; here it is in eval mode.
    """

    targets = None
    needs_teacher = True
    cost = "one forward of the teacher per step, without gradients, and a 1x1 convolution with batch norm per level"

    weight: Positive = hparam(0.001, "weighs the feature loss, which is a sum over channels and positions")

    def setup(self) -> None:
        outputs, teacher_outputs = (DryRun(t.student, t.image_shape).outputs for t in (self.taps, self.teacher_taps))
        self.maps = BeforeReLU(self.taps, outputs)
        self.teacher_maps = BeforeReLU(self.teacher_taps, teacher_outputs)
        self.teacher_levels = teaching_levels(len(self.taps), len(self.teacher_taps))
        teachers = [list(self.teacher_taps)[level] for level in self.teacher_levels]
        norms = [last_norm(teacher_outputs, tap) for tap in teachers]
        self.register_buffer("margins", torch.cat([losses.negative_margin(n.weight, n.bias) for n in norms]))
        self.widths = [tap.channels for tap in teachers]
        pairs = zip(self.taps.channels, self.widths, strict=True)
        self.connectors = nn.ModuleList(connector(channels, width, rectified=False) for channels, width in pairs)

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        with torch.no_grad():
            _, _, teacher_features = self.teacher_maps(batch.images)
        logits, _, features = self.maps(batch.images)
        teachers = [teacher_features[level] for level in self.teacher_levels]
        connected = [
            enlarge(connector(feature), teacher)
            for connector, feature, teacher in zip(self.connectors, features, teachers, strict=True)
        ]
        weights = [0.5**above for above in reversed(range(len(connected)))]  # halved from level to level
        distances = map(losses.overhaul, connected, teachers, self.margins.split(self.widths))
        terms = {
            "task": self.task.loss(logits, batch.target, batch.soft_target),
            "feature": self.weight * sum(w * d for w, d in zip(weights, distances, strict=True)),
        }
        return Step(terms, logits)


def last_norm(outputs: Mapping[str, Output], tap: Tap) -> nn.BatchNorm2d:
    """The last batch norm before a map with as many channels; a projection shortcut's only if there is no other."""
    names = list(outputs)
    before = names[: names.index(tap.name) + 1] if tap.name in outputs else []
    fits = [n for n in before if is_affine_norm(outputs[n].module, tap.channels)]
    if not fits:
        raise ValueError(
            f"OFD tells a margin from the batch norm before each of the teacher's maps, and none of {tap.channels} "
            f"channels runs before {tap.name!r}; give it a teacher whose stages end in one, as a ResNet's do"
        )
    residual = [n for n in fits if not set(PROJECTIONS) & set(n.split("."))]
    return outputs[(residual or fits)[-1]].module


def is_affine_norm(module: nn.Module, channels: int) -> bool:
    return isinstance(module, nn.BatchNorm2d) and module.affine and module.num_features == channels
