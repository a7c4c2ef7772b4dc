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
    """Labels teach a network and, behind each of its stages, a branch that predicts class and rotation jointly.

    The result can teach `hsakd`. Each branch is a new copy of the remaining stages. Network and branches see the four
    rotations of every image. With `joint`, the paper's HSAKD*, all of it learns together from scratch and the branches'
    gradients reach the stages; that also trains a strong network by itself. Without `joint`, the paper's HSAKD, the
    network stays as it is, in eval mode, and only the branches learn: start such a run from a trained network, with
    `student.start=RUN` in a recipe. Batch norms that train see all rotations, as in the authors' code.

    Departs from the paper: without `joint` the network's own cross-entropy is a constant and is not reported. The
    authors keep the epoch with the highest test accuracy of the branches; here the last epoch counts. Branches start as
    widely as the student's own layers do. The authors leave PyTorch's initialization in the branches of VGG-13, and in
    single layers of others.
    """

    square_images = True
    whole_stages = True
    soft_targets = False
    weighted_terms = ("joint",)
    cost = "4x the rows; branches of 2.5x to 6x the student's parameters, each as expensive as the stages it copies"

    joint: bool = hparam(True, "True: train network and branches (HSAKD*); False: the branches alone (HSAKD)")

    def setup(self) -> None:
        self.branches = joint_branches(self.taps, self.task)
        if not self.joint:
            self.freeze_student()

    @property
    def uses_task_loss(self) -> bool:
        return self.joint

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        logits, joint_logits = self.scores(mixing.rotations(batch.images))
        upright, joint_target = logits[:: mixing.ROTATIONS], mixing.joint_labels(batch.target)
        weights = mixing.joint_weights(self.task.class_weights)
        terms = {
            "joint": sum(losses.cross_entropy(logits, joint_target, class_weights=weights) for logits in joint_logits)
        }
        if self.joint:
            terms["task"] = self.task.loss(upright, batch.target)
        return Step(terms, upright)

    def scores(self, images: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b k"], list[Float[Tensor, "b joint"]]]:
        """Class scores, and every branch's joint scores of class and rotation, shallow to deep."""
        return run_with_branches(self.taps, self.branches, images)


def run_with_branches(
    taps: Taps, branches: nn.ModuleList, images: Float[Tensor, "b c h w"]
) -> tuple[Float[Tensor, "b k"], list[Float[Tensor, "b joint"]]]:
    """A network's class scores, and the joint scores of its branches, shallow to deep."""
    logits, features = taps(images)
    return logits, [branch(feature) for branch, feature in zip(branches, features, strict=True)]


def joint_branches(taps: Taps, task: Task) -> nn.ModuleList:
    """A branch for each feature map: a new copy of the stages behind it, with a score per class and rotation."""
    joint = mixing.ROTATIONS * task.num_classes
    return nn.ModuleList(remaining_stages(taps, level, joint) for level in range(len(taps)))
