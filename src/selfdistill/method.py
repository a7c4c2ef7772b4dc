"""The one abstraction: a method trains a student and owns whatever only training needs."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .features.extractor import Taps, stage_ends
from .features.hooks import Hooks
from .features.probe import DryRun
from .hyperparameters import Configurable
from .losses import refuse_float_target
from .modules.teachers import Frozen
from .task import Batch, Step, Task


class Method(Configurable, nn.Module):
    """Base of every training method.

    `self.student` is the plain network that ships. Every other submodule, parameter and buffer is for training only and
    is dropped on export. A subclass

    * names what it needs in `views`, `positives`, `needs_index`, `outputs`, `targets`, `soft_targets` and
      `needs_teacher`;
    * declares its hyper-parameters, see `selfdistill.hyperparameters`;
    * builds its training-only parts in `setup`;
    * computes one step's losses in `forward`;
    * keeps what outlives a step in buffers or `get_extra_state`.
    """

    views: ClassVar[int] = 0  # how many more augmented views of each image it needs
    positives: ClassVar[int] = 0  # how many other images of each image's class it needs
    needs_index: ClassVar[bool] = False  # remembers every training image by batch.index
    outputs: ClassVar[tuple[str, ...]] = ("image",)  # what the student may score: whole images, or each "pixel"
    targets: ClassVar[tuple[str, ...] | None] = ("class",)  # what a label may be; None: whatever the task's loss takes
    soft_targets: ClassVar[bool] = True  # whether labels may be mixed (`mix:` in a recipe)
    unlabeled_terms: ClassVar[
        Sequence[str]
    ] = ()  # loss terms that average over all pixels, not over the labeled ones alone
    square_images: ClassVar[bool] = False  # for methods that rotate images
    needs_teacher: ClassVar[bool] = False
    teacher_method: ClassVar[str] = ""  # the method whose run can teach, with its training-only parts
    whole_stages: ClassVar[bool] = False  # tap the whole output of each stage, so that the next stages can be copied
    cost: ClassVar[str] = ""  # cost beside plain training, in words
    warmup: ClassVar[float] = 0.0  # share of training before which a loss term may be 0

    def __init__(
        self,
        student: nn.Module,
        task: Task,
        *,
        taps: Sequence[str] | None = None,
        teacher: nn.Module | None = None,
        **hyperparameters: Any,
    ) -> None:
        """Checks what is given and builds what only training needs.

        Args:
            student: The network to train. It stays as it is, and is what ships.
            task: What the student learns.
            taps: Names of the submodules whose outputs are the feature maps; None finds them.
            teacher: The network to learn from, where the method needs one.
            **hyperparameters: Values other than the defaults of the method.

        Raises:
            ValueError: for a task, student, teacher or value that does not fit the method.
        """
        super().__init__()
        if task.output not in self.outputs:
            scores = f"{' or '.join(self.outputs)}s, and {task.kind} needs scores of {task.output}s"
            raise ValueError(f"{type(self).__name__} trains networks that score {scores}")
        if self.targets is not None and task.target not in self.targets:
            labels = f"needs labels of the form {' or '.join(self.targets)}, and those of {task.kind} are {task.target}"
            raise ValueError(f"{type(self).__name__} {labels}")
        height, width = task.image_shape[1:]
        if self.square_images and height != width:
            raise ValueError(
                f"rotations need square images, and these are {height} x {width}; set data.image_size to one number"
            )
        if self.needs_index and task.num_examples < 1:
            raise ValueError(
                f"{type(self).__name__} remembers each training image, and task.num_examples={task.num_examples}; "
                f"give how many there are"
            )
        self.refuse_wrong_teacher(teacher)
        if teacher is not None and {*map(id, teacher.parameters())} & {*map(id, student.parameters())}:
            raise ValueError("the teacher shares weights with the student, and would freeze them; give it a copy")
        self.configure(task.output, hyperparameters)
        self.student = student
        self.task = task
        self.teacher = None if teacher is None else Frozen(teacher)
        self._tap_names = taps
        self._student_is_frozen = False
        self._taps: Taps | None = None
        self._teacher_taps: Taps | None = None
        self.setup()
        self._match_student_device()
        self.register_forward_pre_hook(_refuse_batch)
        self.register_forward_hook(_refuse_logits)
        if taps is not None and self._taps is None:
            raise ValueError(f"{type(self).__name__} reads no feature maps, so taps={list(taps)} would have no effect")

    def freeze_student(self) -> None:
        """For `setup`: keeps the student as it is, without gradients and always in eval mode."""
        self._student_is_frozen = True
        self.student.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Method":
        """Sets the mode as for any module, but a frozen student stays in eval mode."""
        super().train(mode)
        if self._student_is_frozen:
            self.student.eval()
        return self

    @classmethod
    def refuse_wrong_teacher(cls, teacher: nn.Module | None) -> None:
        """Raises `ValueError` for a teacher that is missing, not needed, or trained by another method."""
        if (teacher is not None) != cls.needs_teacher:
            if not cls.needs_teacher:
                raise ValueError(f"{cls.__name__} needs no teacher; leave method.teacher out")
            trained = f"a run of method={cls.teacher_method}" if cls.teacher_method else "the run of a trained network"
            raise ValueError(f"{cls.__name__} needs a teacher: set method.teacher to {trained}")
        trained_by = type(teacher).__module__.rpartition(".")[2] if isinstance(teacher, Method) else ""
        if trained_by != cls.teacher_method:
            wanted = f"one that method={cls.teacher_method} trained" if cls.teacher_method else "a plain network"
            raise ValueError(f"the teacher of {cls.__name__} must be {wanted}, and this is a {type(teacher).__name__}")

    def refuse_other_classes(self) -> None:
        """For `setup`: raises `ValueError` for a teacher whose number of classes is not the task's."""
        assert self.teacher is not None, f"{type(self).__name__} declares no teacher"
        teacher = self.teacher.net
        network = teacher.student if isinstance(teacher, Method) else teacher
        num_classes, *positions = DryRun(network, self.task.image_shape).logits.shape[1:]
        self.task.refuse_positions(tuple(positions))
        if num_classes != self.task.num_classes:
            raise ValueError(
                f"the teacher scores {num_classes} classes and the task has {self.task.num_classes}; give "
                f"{type(self).__name__} a teacher that was trained on the same classes"
            )

    @property
    def taps(self) -> Taps:
        """Runs the student and returns its feature maps too. Hooks are set on first use, which must be in `setup`."""
        if self._taps is None:
            names = self._tap_names or (stage_ends(self.student) if self.whole_stages else None)
            self._taps = Taps(self.student, self.task.image_shape, names)
            if self._taps.num_classes != self.task.num_classes:
                raise ValueError(
                    f"the student scores {self._taps.num_classes} classes and the task has {self.task.num_classes}"
                )
            self.task.refuse_positions(self._taps.positions)
        return self._taps

    @property
    def teacher_taps(self) -> Taps:
        """As `taps`, for the teacher; call `ask_teacher` in `forward`."""
        if self._teacher_taps is None:
            assert self.teacher is not None, f"{type(self).__name__} declares no teacher"
            self._teacher_taps = Taps(self.teacher.net, self.task.image_shape)
        return self._teacher_taps

    @torch.no_grad()
    def ask_teacher(self, images: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b k *pos"], list[Tensor]]:
        """The teacher's class scores and its feature maps, shallow to deep; no gradients."""
        return self.teacher_taps(images)

    def _match_student_device(self) -> None:
        """Moves what `setup` built to the student's device, and to float64 if the student has that."""
        parameter = next(self.student.parameters(), None)
        if parameter is None:
            return
        for name, child in self.named_children():
            if name != "student":
                child.to(parameter.device, torch.float64 if parameter.dtype == torch.float64 else None)
        for name, buffer in self._buffers.items():
            if buffer is not None:
                self._buffers[name] = buffer.to(parameter.device)

    def setup(self) -> None:
        """Builds what only training needs; `student`, `task`, `teacher` and the hyper-parameters are set already."""

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        """The losses of one training step. `progress`, a scalar in [0, 1), is the share of training done."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Called after each optimizer step, for teachers that are a moving average of the student."""

    def close(self) -> None:
        """Removes the hooks from student and teacher; a closed method cannot train. Deleting the method does it too."""
        for value in vars(self).values():
            if isinstance(value, Taps | Hooks):
                value.close()


def _refuse_batch(method: Method, args: tuple[Any, ...]) -> None:
    """Raises `ValueError` for a batch that lacks what the method needs."""
    batch, name = args[0], type(method).__name__
    if method.task.target == "class":
        refuse_float_target(batch.target)
    if not method.soft_targets and batch.soft_target is not None:
        raise ValueError(f"{name} needs one class for each image, and these labels are mixed; use mix=none")
    if method.needs_index and batch.index is None:
        raise ValueError(f"{name} knows an image by its index in the training set, and batch.index=None; give it")
    for field, count in (("views", method.views), ("positives", method.positives)):
        images = getattr(batch, field)
        if count and (images is None or images.shape[1] < count):
            raise ValueError(f"{name} needs batch.{field} with {count} for each image, (b, {count}, c, h, w)")


def _refuse_logits(method: Method, args: tuple[Any, ...], step: Step) -> None:
    """Raises `ValueError` for a student whose number of classes is not the task's."""
    if step.logits.shape[1] != method.task.num_classes:
        raise ValueError(
            f"the student scores {step.logits.shape[1]} classes and the task has {method.task.num_classes}"
        )
