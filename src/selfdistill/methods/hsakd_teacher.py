"""Hierarchical Self-supervised Augmented Knowledge Distillation: training of the teacher (HSAKD).

Yang, An, Cai, Xu. IJCAI 2021. https://arxiv.org/abs/2107.13715
"""

from jaxtyping import Float
from torch import Tensor, nn

from .. import losses, mixing
from ..features.extractor import Taps
from ..hyperparameters import hparam
from ..method import Method
from ..modules.branches import remaining_stages
from ..task import Batch, Step, Task


class HSAKDTeacher(Method):
    """Labels teach a network and, behind each of its stages, a branch that tells class and rotation jointly.

    What comes out can teach `hsakd`. Each branch is a fresh copy of the stages that remain, and reads the four
    rotations of every image, as the network does. With `joint` all learns together from scratch, the paper's HSAKD*,
    and the branches' gradients reach the stages: a strong way to train a network by itself, too. Without it the network
    stays as it came, in eval mode, and only the branches learn, the paper's HSAKD: start such a run from a trained
    network, `student.start=RUN` in a recipe, as its own weights stay as they are. Batch norms that train see all
    rotations, as the authors' do.

    Departs from the paper: without `joint` the network's own cross-entropy, a constant there, is not reported. The
    authors keep the epoch in which the branches' test accuracy is highest; here the last epoch counts.
    """

    square_images = True
    whole_stages = True
    soft_targets = False
    cost = "4x the rows; branches of 2.5x to 6x the student's parameters, each as dear as the stages it copies"

    joint: bool = hparam(
        True, "True: network and branches together (HSAKD*); False: the branches of a frozen network (HSAKD)"
    )

    def setup(self) -> None:
        self.branches = joint_branches(self.taps, self.task)
        if not self.joint:
            self.freeze_student()

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits, joint_logits = self.scores(mixing.rotations(batch.images))
        upright, joint_target = logits[:: mixing.ROTATIONS], mixing.joint_labels(batch.target)
        terms = {"joint": sum(losses.cross_entropy(each, joint_target) for each in joint_logits)}
        if self.joint:
            terms["task"] = self.task.loss(upright, batch.target)
        return Step(terms, upright)

    def scores(self, images: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b k"], list[Float[Tensor, "b joint"]]]:
        """Class scores, and the joint scores of class and rotation of every branch, shallow to deep."""
        return branched(self.taps, self.branches, images)


def branched(
    taps: Taps, branches: nn.ModuleList, images: Float[Tensor, "b c h w"]
) -> tuple[Float[Tensor, "b k"], list[Float[Tensor, "b joint"]]]:
    """A network's class scores, and the joint scores of its branches, shallow to deep."""
    logits, features = taps(images)
    return logits, [branch(feature) for branch, feature in zip(branches, features, strict=True)]


def joint_branches(taps: Taps, task: Task) -> nn.ModuleList:
    """A branch for each feature map: a fresh copy of the stages behind it, with scores for each class and rotation."""
    joint = mixing.ROTATIONS * task.num_classes
    return nn.ModuleList(remaining_stages(taps, level, joint) for level in range(len(taps)))
