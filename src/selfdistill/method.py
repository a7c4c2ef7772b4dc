"""The one abstraction: a method trains a student, and owns whatever only training needs."""

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

    `self.student` is the plain network that ships. Every other submodule, parameter and buffer is
    training-only and is dropped on export. A subclass

    * names what it needs in `views`, `positives`, `needs_index`, `outputs`, `targets`, `soft_targets` and
      `needs_teacher`;
    * declares its hyper-parameters: annotated class attributes with a value, see `hyperparameters`;
    * builds its training-only parts in `setup`;
    * computes one step's losses in `forward`;
    * keeps what outlives a step in buffers or `get_extra_state`.
    """

    views: ClassVar[int] = 0  # further augmentations of each image
    positives: ClassVar[int] = 0  # other images of the same label
    needs_index: ClassVar[bool] = False  # remembers each training image: needs batch.index and task.num_examples
    outputs: ClassVar[tuple[str, ...]] = ("image",)  # what the student may score: whole images, or each "pixel"
    targets: ClassVar[tuple[str, ...] | None] = ("class",)  # what a label may be; None: whatever the task's loss takes
    soft_targets: ClassVar[bool] = True  # whether labels may be mixed (`mix:` in a recipe)
    square_images: ClassVar[bool] = False  # needed where images are rotated
    needs_teacher: ClassVar[bool] = False
    teacher_method: ClassVar[str] = ""  # what must have trained the teacher, where its training-only parts teach too
    whole_stages: ClassVar[bool] = False  # tap what a stage hands on to the next: then the rest fits behind it
    cost: ClassVar[str] = ""  # what training costs beside plain training, in words
    warmup: ClassVar[float] = 0.0  # share of training before which a term may still weigh nothing

    def __init__(
        self,
        student: nn.Module,
        task: Task,
        *,
        taps: Sequence[str] | None = None,
        teacher: nn.Module | None = None,
        **hyperparameters: Any,
    ) -> None:
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
        self.refuse_unfit(teacher)
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
        self._join_student()
        self.register_forward_pre_hook(_refuse_batch)
        self.register_forward_hook(_refuse_scores)
        if taps is not None and self._taps is None:
            raise ValueError(f"{type(self).__name__} reads no feature maps, so taps={list(taps)} would have no effect")

    def freeze_student(self) -> None:
        """For `setup`: the student stays as it came, without gradients and in eval mode whatever the method's mode."""
        self._student_is_frozen = True
        self.student.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Method":
        """As for any module, but a frozen student stays in eval mode."""
        super().train(mode)
        if self._student_is_frozen:
            self.student.eval()
        return self

    @classmethod
    def refuse_unfit(cls, teacher: nn.Module | None) -> None:
        """Raises `ValueError` for a teacher that is missing, is not wanted, or was trained by another method."""
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
        """Raises `ValueError` for a teacher that scores another number of classes than the task has; for `setup`."""
        assert self.teacher is not None, f"{type(self).__name__} declares no teacher"
        teacher = self.teacher.net
        network = teacher.student if isinstance(teacher, Method) else teacher
        taught, *positions = DryRun(network, self.task.image_shape).logits.shape[1:]
        self.task.refuse_positions(tuple(positions))
        if taught != self.task.num_classes:
            raise ValueError(
                f"the teacher scores {taught} classes and the task has {self.task.num_classes}; give "
                f"{type(self).__name__} a teacher that was trained on the same classes"
            )

    @property
    def taps(self) -> Taps:
        """The student's feature maps, found on first use, in `setup`: a method that reads none sets no hook."""
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
        """The teacher's feature maps, found on first use, in `setup`; read them through `ask_teacher`."""
        if self._teacher_taps is None:
            assert self.teacher is not None, f"{type(self).__name__} declares no teacher"
            self._teacher_taps = Taps(self.teacher.net, self.task.image_shape)
        return self._teacher_taps

    @torch.no_grad()
    def ask_teacher(self, images: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b k *pos"], list[Tensor]]:
        """The teacher's class scores and feature maps, shallow to deep, constants all."""
        return self.teacher_taps(images)

    def _join_student(self) -> None:
        """Takes what `setup` built to the student's device, and to double precision where the student has it."""
        like = next(self.student.parameters(), None)
        for name, child in self.named_children():
            if like is not None and name != "student":
                child.to(like.device, torch.float64 if like.dtype == torch.float64 else None)
        for name, buffer in self._buffers.items():
            if like is not None and buffer is not None:
                self._buffers[name] = buffer.to(like.device)

    def setup(self) -> None:
        """Builds what only training needs. `student`, `task`, `teacher` and the hyper-parameters are set."""

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        """One training step's losses. `progress`, () in [0, 1), is the share of training done."""
        raise NotImplementedError

    def after_step(self) -> None:
        """Called after each optimiser step; for teachers that trail the student."""

    def close(self) -> None:
        """Removes the hooks from student and teacher; a closed method cannot train. Deleting the method does it too."""
        for value in vars(self).values():
            if isinstance(value, Taps | Hooks):
                value.close()


def _refuse_batch(method: Method, args: tuple[Any, ...]) -> None:
    """Raises `ValueError` for a batch that lacks what the method declares to need."""
    batch, name = args[0], type(method).__name__
    if method.task.target == "class":
        refuse_float_target(batch.target)
    if not method.soft_targets and batch.soft_target is not None:
        raise ValueError(f"{name} needs one class for each image, and these labels are mixed; use mix=none")
    if method.needs_index and batch.index is None:
        raise ValueError(f"{name} knows an image by its index in the training set, and batch.index=None; give it")
    for part, count in (("views", method.views), ("positives", method.positives)):
        given = getattr(batch, part)
        if count and (given is None or given.shape[1] < count):
            raise ValueError(f"{name} needs batch.{part} with {count} for each image, (b, {count}, c, h, w)")


def _refuse_scores(method: Method, args: tuple[Any, ...], step: Step) -> None:
    """Raises `ValueError` for a student that scores another number of classes than the task has."""
    if step.logits.shape[1] != method.task.num_classes:
        raise ValueError(
            f"the student scores {step.logits.shape[1]} classes and the task has {method.task.num_classes}"
        )
