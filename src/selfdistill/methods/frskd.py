"""Refine Myself by Teaching Myself: Feature Refinement via Self-Knowledge Distillation (FRSKD).

Ji, Shin, Hwang, Park, Moon. CVPR 2021. https://arxiv.org/abs/2103.08273
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple

import torch
from annotated_types import Interval
from jaxtyping import Float
from torch import Tensor, nn

from .. import losses
from ..features.before_relu import BeforeReLU
from ..features.probe import DryRun
from ..hyperparameters import Count, Positive, Share, ShortRun, Weight, hparam
from ..method import Method
from ..modules.bifpn import BiFPN, BiFPNc, SelfTeacher
from ..modules.blocks import bilinear
from ..modules.heads import find_classifier_like
from ..modules.pyramid import PyramidTeacher
from ..modules.teachers import GrowingAverage
from ..modules.timetable import Timetable, read_timetable
from ..task import Batch, Step

SHORT_LEVELS = 2  # of a classifier in a short run, if it has as many (docs/short-schedules.md, docs/fine-tuning.md)
TWO_LEVELS_FROM = 1200  # steps of a run from random weights; in fewer a second level costs more than it gains
SHORT_TEMPERATURE = 4.0  # of masks too, as measured (docs/short-schedules.md)
RAMP_STEPS = 620  # of a short run in which both losses grow, as measured (docs/short-schedules.md)


class BothNetworks(NamedTuple):
    """What the student and the self-teacher give for b images; maps go from shallow to deep."""

    logits: Float[Tensor, "b k *pos"]
    features: list[Tensor]  # the student's maps
    compared: list[Tensor]  # the same maps as the feature loss reads them
    teacher_logits: Float[Tensor, "b k *pos"]
    soft_labels: Float[Tensor, "b k *pos"]  # scores that teach: the same, or those of the self-teacher's average
    refined: list[Tensor]  # the maps that teach, likewise


def choose_ramp(run: ShortRun) -> float:
    """The share of a run far shorter than the paper's over which both losses grow: `RAMP_STEPS`, in tenths of it.

    It is at most what is left after `start`, `settle` and `warmup`.
    """
    left = round(1.0 - read_timetable(run.settings).imitation, 9)
    return min(left, round(RAMP_STEPS / run.steps, 1))


def choose_levels(run: ShortRun) -> int | None:
    """How many of the deepest maps a run far shorter than the paper's uses; None: all, as masks do but in few steps.

    Where the pyramid's fusion is set, all are used too, and where the student ends in a pyramid.
    """
    is_set = any(run.settings[name] != getattr(FRSKD, name) for name in ("depth", "repeat"))
    if is_set or choose_net(run.settings["self_teacher_net"], run.student) == "pyramid":
        return None
    if not run.is_tuning and run.steps < TWO_LEVELS_FROM:
        return 1
    return None if run.output == "pixel" else SHORT_LEVELS


def choose_alpha(run: ShortRun) -> float:
    """What weighs the soft labels in a run far shorter than the paper's: 0 where a single map scores pixels.

    From random weights the self-teacher of so coarse a map stays worse than the student (docs/short-schedules.md).
    Where soft labels are set in another way, or are all that teaches, they stay.
    """
    is_coarse = run.output == "pixel" and run.settings["levels"] == 1 and not run.is_tuning
    is_set = "temperature" in run.given or "distil_void" in run.given or not run.settings.get("beta")
    return 0.0 if is_coarse and not is_set else FRSKD.defaults(run.output)["alpha"]


def choose_net(net: str | None, student: nn.Module | None) -> str:
    """The self-teacher's network: the one that is set, or else the paper's for the student."""
    return net or ("pyramid" if hasattr(student, "pyramid_norm") else "BiFPNc")


class FRSKD(Method):
    """A self-teacher refines the student's feature maps; the student learns from the refined maps and the soft labels.

    Both networks learn at once. The self-teacher learns from its own cross-entropy. The student learns from its
    cross-entropy, the self-teacher's soft labels and its refined maps; these targets are constants. The paper's
    FRSKD\\F is `beta` 0.

    In segmentation the same holds for each pixel. The self-teacher scores all refined maps together (`BiFPNc`,
    `BiFPN`), or it is the paper's: two more layers on the pyramid of the students efficientdet:d0 to d2 (`pyramid`).
    Soft labels are compared at the size of the image, where pixels have a label.

    In bfloat16 the self-teacher's cross-entropy reaches the student with much rounding noise: around a new ResNet-18
    its gradient has a cosine of 0.5 with the one in float32. No loss of accuracy was found in it: on 2,000 photographs,
    three seeds, bfloat16 made a difference of -0.8 points around one student (interval from -2.7 to 1.1) and of +1.1
    around a wider one (-3.9 to 6.0), and took 0.7 of the time. `precision=fp32` avoids it.

    Departs from the paper: where its text and the authors' code differ, this follows the code, which gave the published
    numbers. The self-teacher's cross-entropy reaches the student's stages too (`stop_gradient` prevents that),
    upsampling is by nearest neighbor, the feature loss is a mean of squares, and each level has two laterals. For
    segmentation the authors' soft labels also teach pixels without a label (`distil_void`), and their ramp changes once
    an epoch. `feature_loss` overhaul reads each map of the student before the `nn.ReLU` that it ends in; a map that
    ends otherwise is read as it is. The authors' WRN-16-2 gives its last map rectified there. In a run of fewer than
    20,000 steps both losses grow over about 620 of them (`ramp`; above 12,400 they are constant), with temperature 4
    for masks too. In under 1,200 steps from random weights such a run takes the deepest map alone (`levels`), else
    around a classifier the deepest two; with `depth` or `repeat` set, or a student that ends in a pyramid, all. One map
    is too coarse to teach pixels from random weights, so there are no soft labels then (`alpha` 0), unless `alpha`,
    `temperature` or `distil_void` is set, or `beta` 0.
    Measured in shorter runs, it was better (docs/short-schedules.md). These are off unless set: before `start` the
    self-teacher sleeps, and a step is that of plain training; for `settle` it then learns from detached maps and does
    not teach yet; `stop_gradient_before` and `stop_gradient_after` limit to a part of training that its cross-entropy
    reaches the student; with `teacher_average` an average of its weights teaches, with the running statistics of its
    batch norms; with `start_from_classifier` its last layer is the student's until it wakes.
    """

    outputs = ("image", "pixel")
    targets = None  # soft labels need a task that compares them, see refuse_useless_settings
    supervised_terms = ("task", "teacher")
    soft_label_terms, soft_labels_are_optional = ("kd",), True
    cost = "self-teacher on all maps: 0.6x the student's parameters, 0.7x its multiply-adds (BiFPNc, width 2, depth 2)"

    levels: Count | None = hparam(  # above what depends on it
        None, "how many of the deepest maps are used; None: all", short_run=choose_levels
    )
    alpha: Weight = hparam(
        2.0, "weighs the soft-label loss, 1 to 3 in the paper", per_pixel=1.0, short_run=choose_alpha
    )
    beta: Weight = hparam(100.0, "weighs the feature loss, 100 or 200 in the paper; 0 is FRSKD\\F", per_pixel=50.0)
    temperature: Positive = hparam(
        4.0, "softens both distributions", per_pixel=1.0, short_run=SHORT_TEMPERATURE, used_with="alpha"
    )
    feature_loss: Literal["attention", "hint", "overhaul"] = hparam(
        "attention", "overhaul is a sum; it needs beta of about 1e-3", used_with="beta"
    )
    margin: Literal["initial", "current"] = hparam(
        "initial", "overhaul: from untrained batch norms (the authors) or from the current ones", used_with="beta"
    )
    stop_gradient: bool = hparam(False, "True: the self-teacher's cross-entropy does not reach the student")
    stop_gradient_before: Share = hparam(0.0, "share of training before which it does not reach the student")
    stop_gradient_after: Share = hparam(1.0, "share of training after which it does not reach the student")
    start: Share = hparam(0.0, "share of training before which only the plain student trains")
    settle: Share = hparam(
        0.0, "share of training after `start` in which both losses wait, and the self-teacher learns from detached maps"
    )
    warmup: Share = hparam(
        0.0,
        "share of training before both losses begin",
        per_pixel=2 / 3,
        short_run=0.0,
        used_with=("alpha", "beta"),
    )
    ramp: Share = hparam(
        0.0,
        "share of training over which both weights then grow from 0; 0: constant",
        per_pixel=1 / 3,
        short_run=choose_ramp,
        used_with=("alpha", "beta"),
    )
    teacher_average: Annotated[float, Interval(ge=0, lt=1)] = hparam(
        0.0,
        "share of itself that an average of the self-teacher keeps in each step, which teaches then; 0: none",
        used_with=("alpha", "beta"),
    )
    start_from_classifier: bool = hparam(
        False, "True: the self-teacher's last layer starts as the student's classifier; needs `width` 1"
    )
    distil_void: bool = hparam(False, "True: soft labels also teach pixels without a label", used_with="alpha")
    self_teacher_net: Literal["BiFPNc", "BiFPN", "pyramid"] | None = hparam(
        None,
        "levels with `width` times the student's channels, equal levels or pyramid; None: by the student",
    )
    depth: Count = hparam(2, "convolutions per node of the self-teacher")
    width: Count = hparam(2, "BiFPNc: channels of a level, as a multiple of the student's")
    num_channels: Count = hparam(256, "BiFPN: channels of every level")
    repeat: Count = hparam(1, "BiFPN: passes")

    def setup(self) -> None:
        self.refuse_useless_settings()
        channels = self.taps.channels[-(self.levels or 0) :]
        if self.levels is not None and self.levels > max(len(channels), SHORT_LEVELS):
            raise ValueError(f"{self.levels} levels were asked for and the student has {len(channels)} feature maps")
        self.refuse_unused(["depth", "repeat"], len(channels) == 1, "a single level, which needs no fusion")
        self.self_teacher = self.build_self_teacher(channels)
        if self.start_from_classifier:
            self.classifier = find_classifier_like(getattr(self.self_teacher, "fc", None), self.taps)
            self.copy_classifier()
        if self.teacher_average:
            self.average = GrowingAverage(self.self_teacher, self.teacher_average)
        if self.beta and self.feature_loss != "attention":
            rectified = self.feature_loss == "hint"
            self.connectors = nn.ModuleList(
                connector(c, d, rectified) for c, d in zip(channels, self.self_teacher.channels, strict=True)
            )
        self.before_relu: BeforeReLU | None = None
        if self.beta and self.feature_loss == "overhaul":
            self.before_relu = BeforeReLU(self.taps, DryRun(self.student, self.task.image_shape).outputs)

    def copy_classifier(self) -> None:
        """Gives the self-teacher's last layer the weights of the student's."""
        self.self_teacher.fc.load_state_dict(self.student.get_submodule(self.classifier).state_dict())

    @property
    def needs_after_step(self) -> bool:
        return bool(self.teacher_average or (self.start_from_classifier and self.start))

    def after_step(self) -> None:
        super().after_step()
        if self.trains_student_alone:
            if self.start_from_classifier:
                self.copy_classifier()
            if self.teacher_average:
                self.average.update(self.self_teacher, 0.0)
        elif self.teacher_average:
            self.average.follow(self.self_teacher)

    def list_cheaper_settings(self) -> list[str]:
        """Of images fewer of the deepest maps, which gained as much in the same time (docs/when-it-helps.md)."""
        levels = len(self.self_teacher.channels)
        if not self.task.positions and levels > 1:
            return [f"levels={fewer}" for fewer in (2, 1) if fewer < levels]
        width = {"BiFPNc": "width", "BiFPN": "num_channels"}.get(self.net)
        depth = "depth" if levels > 1 else None
        names = [name for name in (width, depth) if name is not None and getattr(self, name) > 1]
        return [f"{name}={getattr(self, name) // 2}" for name in names]

    @property
    def unlabeled_terms(self) -> Sequence[str]:
        return ("feature", "kd") if self.distil_void else ("feature",)

    @property
    def net(self) -> str:
        return choose_net(self.self_teacher_net, self.student)

    def build_self_teacher(self, channels: list[int]) -> SelfTeacher | PyramidTeacher:
        if self.net == "pyramid":
            return PyramidTeacher(channels, self.task.num_classes, **getattr(self.student, "pyramid_norm", {}))
        shape = {
            "depth": self.depth,
            "preactivation": self.feature_loss == "overhaul",
            "output": self.task.output,
            "rectified": self.taps.rectified[-len(channels) :],
        }
        if self.net == "BiFPN":
            return BiFPN(channels, self.task.num_classes, num_channels=self.num_channels, repeat=self.repeat, **shape)
        return BiFPNc(channels, self.task.num_classes, width=self.width, **shape)

    def refuse_useless_settings(self) -> None:
        """Raises `ValueError` for settings that have no effect together."""
        net = f"self_teacher_net={self.net}"
        self.refuse_unused(["num_channels", "repeat"], self.net != "BiFPN", net)
        self.refuse_unused(["width"], self.net != "BiFPNc", net)
        self.refuse_unused(["depth"], self.net == "pyramid", net)
        if self.alpha and not self.task.can_distill:
            raise ValueError(f"soft labels compare class probabilities, which {self.task.kind} lacks; set alpha=0")
        self.refuse_unused(["distil_void"], not self.task.positions, f"the task {self.task.kind}")
        self.refuse_unused(["margin"], self.feature_loss != "overhaul", f"feature_loss={self.feature_loss}")
        self.refuse_useless_shares()
        if self.net == "pyramid" and not self.task.positions:
            raise ValueError(f"{net} scores pixels, and the task is {self.task.kind}; take BiFPNc or BiFPN")
        if self.net == "pyramid" and self.levels is not None:
            raise ValueError(
                f"{net} continues the student's pyramid and takes all its maps; leave levels={self.levels} out"
            )
        if self.net == "pyramid" and self.feature_loss == "overhaul":
            raise ValueError(
                f"{net} gives rectified maps, and feature_loss=overhaul needs others; take attention or hint"
            )

    def refuse_useless_shares(self) -> None:
        """Raises `ValueError` for shares of training that contradict each other, or have no effect."""
        times = self.timetable
        times.refuse_contradictions()
        waits = f"start={self.start} and settle={self.settle}"
        self.refuse_unused(["warmup"], 0 < self.warmup <= times.awake, waits)
        self.refuse_unused(["stop_gradient_before"], times.awake >= self.stop_gradient_before, waits)
        self.refuse_unused(["stop_gradient_before", "stop_gradient_after"], self.stop_gradient, "stop_gradient=True")
        if times.imitation + self.ramp > 1 + 1e-9:
            names = "warmup" if self.warmup >= times.awake else "start + settle"
            raise ValueError(
                f"{names}={times.imitation:g} and ramp={self.ramp:g} are shares of training, and add up to over 1"
            )

    @property
    def timetable(self) -> Timetable:
        return Timetable(*(getattr(self, name) for name in Timetable._fields))

    @property
    def phases(self) -> Mapping[str, float]:
        return self.timetable.phases

    @property
    def trains_student_alone(self) -> bool:
        return self.phase == "asleep"

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        if self.trains_student_alone:
            logits = self.student(batch.images)
            return Step({"task": self.task.loss(logits, batch.target, batch.soft_target)}, logits)
        logits, _, features, teacher_logits, soft_labels, refined = self.both(batch.images)
        terms = {
            "task": self.task.loss(logits, batch.target, batch.soft_target),
            "teacher": self.task.loss(teacher_logits, batch.target, batch.soft_target),
        }
        if self.phase == "settling":
            return Step(terms, logits, soft_labels.detach())
        ramp = losses.ramp_up(progress, self.timetable.imitation, self.ramp)
        if self.alpha:
            mask = None if self.distil_void else self.task.labeled_mask(batch.target)
            terms["kd"] = self.alpha * self.task.distill(logits, soft_labels, self.temperature, mask) * ramp
        distances = self.feature_distances(features, refined) if self.beta else {}
        if self.beta:
            terms["feature"] = self.beta * sum(distances.values()) * ramp
        return Step(terms, logits, soft_labels.detach(), {name: d.detach() for name, d in distances.items()} or None)

    @property
    def learns_from_own_teacher(self) -> bool:
        return bool(self.alpha)  # the refined maps teach whatever it answers

    def both(self, images: Float[Tensor, "b c h w"]) -> BothNetworks:
        """The student's scores and maps, and the self-teacher's scores and refined maps."""
        if self.before_relu is None:
            logits, features = self.taps(images)
            compared = features
        else:
            logits, features, compared = self.before_relu(images)
        levels = slice(-len(self.self_teacher.channels), None)
        features, compared = features[levels], compared[levels]
        is_detached = self.stop_gradient or self.phase != "teaching"
        inputs = [feature.detach() for feature in features] if is_detached else features
        teacher_logits, refined = self.self_teacher(inputs)
        soft_labels = teacher_logits = bilinear(teacher_logits, logits)
        if self.teacher_average:
            soft_labels, refined = self.average(features)
            soft_labels = bilinear(soft_labels, teacher_logits)
        return BothNetworks(logits, features, compared, teacher_logits, soft_labels, refined)

    def compare_maps(self, images: Float[Tensor, "b c h w"]) -> tuple[list[Tensor], list[Tensor]]:
        both = self.both(images)
        return both.features, [refined.relu() for refined in both.refined]  # overhaul gives them before their ReLU

    def feature_distances(self, features: list[Tensor], refined: list[Tensor]) -> dict[str, Float[Tensor, ""]]:
        """Distances of the student's maps from the refined maps, which are constants; the feature loss is their sum."""
        names = [tap.name for tap in self.taps][-len(features) :]
        if self.feature_loss == "attention":
            return dict(zip(names, map(losses.attention_transfer, features, refined), strict=True))
        connected = [connector(feature) for connector, feature in zip(self.connectors, features, strict=True)]
        if self.feature_loss == "hint":
            return dict(zip(names, map(losses.hint, connected, refined), strict=True))
        distances = map(losses.overhaul, connected, refined, self.margins())
        weights = [0.5**above for above in reversed(range(len(connected)))]  # halved from level to level
        weighted = [weight * distance for weight, distance in zip(weights, distances, strict=True)]
        return dict(zip(names, weighted, strict=True))

    def margins(self) -> list[Float[Tensor, " c"]]:
        """Overhaul's margins of every level, one per channel."""
        teacher = self.average.net if self.teacher_average else self.self_teacher
        norms = [(norm.weight, norm.bias) for norm in teacher.norms()]
        if self.margin == "initial":
            norms = [(torch.ones_like(scale), torch.zeros_like(shift)) for scale, shift in norms]
        return [losses.negative_margin(scale, shift) for scale, shift in norms]


def connector(channels: int, width: int, rectified: bool) -> nn.Sequential:
    """From the student's channels to `width`: a 1x1 convolution, a batch norm and, if `rectified`, a ReLU."""
    conv = nn.Conv2d(channels, width, 1, bias=False)
    nn.init.normal_(conv.weight, std=(2 / width) ** 0.5)
    return nn.Sequential(conv, nn.BatchNorm2d(width), *[nn.ReLU()] * rectified)
