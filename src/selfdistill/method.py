"""The one abstraction: a method trains a student and owns whatever only training needs."""

import bisect
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from .features.extractor import Taps, stage_ends
from .features.hooks import Hooks
from .features.probe import DryRun, refuse_compiled_or_empty
from .hyperparameters import Configurable
from .losses import are_probabilities
from .modules.remembered import is_large
from .modules.teachers import Frozen
from .task import Batch, Step, Task, as_batch, check_batch, check_labels
from .task.label_loss import LabelLoss


class Method(Configurable, nn.Module):
    """Base of every training method.

    `self.student` is the plain network that ships. Every other submodule, parameter and buffer is for training only and
    is dropped on export. A subclass

    * names what it needs in `views`, `positives`, `needs_index`, `outputs`, `targets`, `soft_targets` and
      `needs_teacher`, and the loss terms that learn from labels in `supervised_terms` and `weighted_terms`, and from
      class scores in `soft_label_terms`;
    * declares its hyper-parameters, see `selfdistill.hyperparameters`;
    * builds its training-only parts in `setup`;
    * computes one step's losses in `forward`;
    * keeps what outlives a step in buffers or `get_extra_state`.
    """

    views: ClassVar[int] = 0  # how many more augmented views of each image it needs
    positives: ClassVar[int] = 0  # how many other images of each image's class it needs
    needs_index: ClassVar[bool] = False  # remembers every training image by batch.index
    remembered: ClassVar[Sequence[str]] = ()  # buffers with a row for each training image, 0 where it was not seen
    outputs: ClassVar[tuple[str, ...]] = ("image",)  # what the student may score: whole images, or each "pixel"
    targets: ClassVar[tuple[str, ...] | None] = ("class",)  # what a label may be; None: whatever the task's loss takes
    soft_targets: ClassVar[bool] = True  # whether labels may be mixed (`mix:` in a recipe)
    supervised_terms: ClassVar[Sequence[str]] = ("task",)  # loss terms that `task.loss` computes
    weighted_terms: ClassVar[Sequence[str]] = ()  # cross-entropies of the method's own that take the class weights
    counts_batch_labels: ClassVar[bool] = True  # False: these terms see other labels than `batch.target`, or soften it
    soft_label_terms: ClassVar[Sequence[str]] = ()  # that compare class scores by `Task.distill`
    soft_labels_are_optional: ClassVar[bool] = False  # whether a setting turns them off, for tasks without `distill`
    unlabeled_terms: ClassVar[Sequence[str]] = ()  # loss terms that average over all pixels, labeled or not
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
        _refuse_other_objects(type(self).__name__, student, task, teacher)
        if problem := self.find_obstacle(task, task.kind):
            raise ValueError(f"{type(self).__name__} {problem}")
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
        if isinstance(task.criterion, LabelLoss):
            self.criterion = task.criterion  # its class weights move to the device of the method
        self.teacher = None if teacher is None else Frozen(teacher)
        self._tap_names = taps
        self._student_is_frozen = False
        self._kept_in_eval_mode: list[nn.Module] = []
        self._taps: Taps | None = None
        self._teacher_taps: Taps | None = None
        self._values_were_checked = False  # of the first step
        self._awaits_after_step = False
        self._watch_optimizers()
        self.setup()
        if missing := [name for name in self.remembered if name not in self.state_dict()]:
            raise ValueError(f"{type(self).__name__}.remembered names {missing[0]!r}; have setup register that buffer")
        if self.remembered:  # every process writes all rows, so DDP need not broadcast the tables at every step
            self._ddp_params_and_buffers_to_ignore = list(self.remembered)
        self.begin_step(None)
        self._refuse_idle_student()
        self._refuse_idle_loss()
        self._match_student_device()
        self.register_forward_pre_hook(_check_call, with_kwargs=True)
        self.register_forward_hook(_check_step)
        if taps is not None and self._taps is None:
            raise ValueError(f"{type(self).__name__} reads no feature maps, so taps={list(taps)} would have no effect")

    @classmethod
    def find_obstacle(cls, task: Any, name: str) -> str | None:
        """Why it cannot learn a task, as the end of a sentence; None if it can.

        `task` is a `Task` called `name`, or anything else with `output`, `target` and `can_distill`.
        """
        if task.output not in cls.outputs:
            scores = f"{' or '.join(cls.outputs)}s, and {name} needs scores of {task.output}s"
            return f"trains networks that score {scores}"
        if cls.targets is not None and task.target not in cls.targets:
            return f"needs labels of the form {' or '.join(cls.targets)}, and those of {name} are {task.target}"
        if cls.soft_label_terms and not cls.soft_labels_are_optional and not task.can_distill:
            return f"compares soft labels, and {name} has no soft_label_loss for its labels of the form {task.target}"
        return None

    def _refuse_idle_student(self) -> None:
        """Raises `ValueError` for a student without a weight that learns, unless the method froze it."""
        learn = [parameter.requires_grad for parameter in self.student.parameters()]
        if learn and not any(learn) and not self._student_is_frozen:
            raise ValueError(
                f"no weight of the student {type(self.student).__name__} learns: all are frozen; call "
                f"student.requires_grad_(True) before {type(self).__name__} takes it"
            )

    @property
    def uses_task_loss(self) -> bool:
        """Whether `task.loss` computes a loss term under these settings."""
        return bool(self.supervised_terms)

    def _refuse_idle_loss(self) -> None:
        """Raises `ValueError` for a task whose loss, or whose class weights, no term of the method would use."""
        name = type(self).__name__
        if not self.uses_task_loss and not self.task.has_plain_loss:
            raise ValueError(
                f"{name} with these settings has a supervised loss of its own, so task.loss, task.label_smoothing or a "
                f"criterion has no effect; leave it out, or take another method such as baseline"
            )
        if not (self.uses_task_loss or self.weighted_terms) and self.task.class_weights is not None:
            raise ValueError(f"{name} with these settings learns from no label, so class_weights would have no effect")

    def freeze_student(self) -> None:
        """For `setup`: keeps the student as it is, without gradients and always in eval mode."""
        self._student_is_frozen = True
        self.student.requires_grad_(False).eval()

    def keep_in_eval_mode(self, modules: Sequence[nn.Module]) -> None:
        """Keeps these modules of the student in eval mode from now on, and those of an earlier call no more."""
        for module in self._kept_in_eval_mode:
            module.train(self.training)
        self._kept_in_eval_mode = [*modules]
        for module in modules:
            module.eval()

    def train(self, mode: bool = True) -> "Method":
        """Sets the mode as for any module, but what is frozen of the student stays in eval mode."""
        super().train(mode)
        for module in [self.student] * self._student_is_frozen + self._kept_in_eval_mode:
            module.eval()
        return self

    @classmethod
    def refuse_wrong_teacher(cls, teacher: nn.Module | None) -> None:
        """Raises `ValueError` for a teacher that is missing, not needed, or trained by another method."""
        if (teacher is not None) != cls.needs_teacher:
            if not cls.needs_teacher:
                raise ValueError(f"{cls.__name__} needs no teacher; leave out method.teacher, or teacher=")
            trained = f"a run of method={cls.teacher_method}" if cls.teacher_method else "the run of a trained network"
            network = f"a trained {cls.teacher_method} method" if cls.teacher_method else "a trained network"
            raise ValueError(
                f"{cls.__name__} needs a teacher: set method.teacher to {trained}, or pass teacher=, {network}"
            )
        trained_by = type(teacher).__module__.rpartition(".")[2] if isinstance(teacher, Method) else ""
        if trained_by != cls.teacher_method:
            wanted = f"one that method={cls.teacher_method} trained" if cls.teacher_method else "a plain network"
            raise ValueError(f"the teacher of {cls.__name__} must be {wanted}, and this is a {type(teacher).__name__}")

    @property
    def learns_from_own_teacher(self) -> bool:
        """Whether the answers of its own teacher, where `Step.teacher_logits` shows them, teach the student."""
        return True

    def list_cheaper_settings(self) -> list[str]:
        """Settings as `name=value` that make a training step cheaper; none unless a method says so."""
        return []

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

    @property
    def large_tables(self) -> list[str]:
        """The `remembered` buffers that are too large for two checkpoints, see `modules.remembered`."""
        return [name for name in self.remembered if is_large(getattr(self, name))]

    def setup(self) -> None:
        """Builds what only training needs; `student`, `task`, `teacher` and the hyper-parameters are set already."""

    def compare_maps(self, images: Float[Tensor, "b c h w"]) -> tuple[list[Tensor], list[Tensor]] | None:
        """The student's maps and the self-teacher's of these images, shallow to deep; None without a self-teacher."""
        return None

    if TYPE_CHECKING:  # what calling a method gives, which nn.Module leaves open

        def __call__(self, batch: Batch | Sequence[Tensor], progress: Tensor | float = 0.0) -> Step: ...

    def forward(self, batch: Batch, progress: Tensor | float = 0.0) -> Step:
        """The losses of one training step. `progress`, a scalar in [0, 1], is the share of training done.

        A pair (images, target) may be given for `batch`. Raises `ValueError` for a batch that does not fit the task or
        the method, for a `progress` outside of [0, 1], and where `after_step` was left out. Values on a GPU are checked
        in the first call alone, because checking waits for them.
        """
        raise NotImplementedError

    @property
    def phases(self) -> Mapping[str, float]:
        """The phases of training by name, with the share of training at which each begins, in their order.

        A step may compute other things in each of them, as `phase` says. Of phases that begin together the last counts.
        """
        return {"": 0.0}

    @property
    def has_phases(self) -> bool:
        """Whether any phase follows another."""
        return len({*self.phases.values()}) > 1

    @property
    def trains_student_alone(self) -> bool:
        """Whether a step of this `phase` is one of plain training."""
        return False

    def find_phase(self, progress: float) -> str:
        """The phase of a step that is taken when this share of training is done."""
        return [*self.phases][bisect.bisect_right([*self.phases.values()], progress) - 1]

    def begin_step(self, progress: float | None) -> None:
        """Says what share of training is done before the next step, and so sets its `phase`.

        A loop need not call it, as `forward` reads `progress` then. But reading waits for a GPU, and compiled code
        cannot. With None, `forward` reads it from now on.
        """
        self.phase = self.find_phase(progress or 0.0)
        self._reads_progress = progress is None and self.has_phases

    def after_step(self) -> None:
        """Call this after each optimizer step: teachers that are a moving average of the student move here.

        An override calls `super().after_step()`. A method that has one refuses to train on where it was not called.
        """
        self._awaits_after_step = False

    def on_optimizer_step(self, function: Callable[[], None]) -> None:
        """Calls `function`, a bound method, after each step of an optimizer that trains parameters of this method.

        Other libraries' trainers need not be told then when a step is over. It lasts as long as both objects do.
        """
        method_ref, function_ref = weakref.ref(self), weakref.WeakMethod(function)

        def note_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
            method, function = method_ref(), function_ref()
            own = set() if method is None else {id(parameter) for parameter in method.parameters()}
            is_own = any(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"])
            if is_own and function is not None:
                function()

        handle = register_optimizer_step_post_hook(note_step)
        weakref.finalize(self, handle.remove).atexit = False

    @property
    def needs_after_step(self) -> bool:
        """Whether `after_step` does anything, so that leaving it out is refused."""
        return type(self).after_step is not Method.after_step

    def _watch_optimizers(self) -> None:
        """Has every optimizer tell when it changed this method's parameters, where `after_step` matters."""
        if self.needs_after_step:
            self.on_optimizer_step(self._note_step)

    def _note_step(self) -> None:
        self._awaits_after_step = True

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._watch_optimizers()  # a copy is another method

    def close(self) -> None:
        """Removes the hooks from student and teacher; a closed method cannot train. Deleting the method does it too."""
        for value in vars(self).values():
            if isinstance(value, Taps | Hooks):
                value.close()


def _refuse_other_objects(name: str, student: Any, task: Any, teacher: Any) -> None:
    """Raises `ValueError` where what a method is made of is of another kind."""
    if isinstance(student, str):
        raise ValueError(f"{name} takes a network, not its name; give sd.build_student({student!r}, num_classes=...)")
    for role, network in {"student": student, "teacher": teacher}.items():
        if isinstance(network, type):
            raise ValueError(
                f"the {role} of {name} must be a network, and {network.__name__} is a class; call it first"
            )
        if not isinstance(network, nn.Module) and not (network is None and role == "teacher"):
            raise ValueError(f"the {role} of {name} must be a torch.nn.Module, not a {type(network).__name__}")
    if isinstance(student, Method):
        raise ValueError(f"the student of {name} must be a plain network, and this is a {type(student).__name__}")
    refuse_compiled_or_empty(student)
    if not isinstance(task, Task):
        raise ValueError(
            f'{name} needs a task, as in sd.Task("classification", num_classes, (channels, height, width)), not a '
            f"{type(task).__name__}"
        )


def _check_call(
    method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Raises `ValueError` for arguments that `method` cannot train on; makes a pair of images and labels a `Batch`."""
    name = type(method).__name__
    batch = as_batch(args[0] if args else kwargs.get("batch"))
    progress = args[1] if len(args) > 1 else kwargs.get("progress", 0.0)
    check_batch(batch, method.task)
    if not method.soft_targets and batch.soft_target is not None:
        raise ValueError(f"{name} needs one class for each image, and these labels are mixed; use mix=none")
    if method.needs_index and batch.index is None:
        raise ValueError(f"{name} knows an image by its index in the training set, and batch.index=None; give it")
    for field, count in (("views", method.views), ("positives", method.positives)):
        images = getattr(batch, field)
        if count and (images is None or images.shape[1] < count):
            raise ValueError(f"{name} needs batch.{field} with {count} for each image, (b, {count}, c, h, w)")
    if not torch.compiler.is_compiling():  # compiled code would be compiled anew for each of these values
        _check_values(method, batch, progress)
        if method._awaits_after_step and method.training and torch.is_grad_enabled():
            raise ValueError(
                f"{name} did not move its teacher after the last optimizer step; call method.after_step() behind each "
                f"optimizer.step(), and super().after_step() in an after_step of your own"
            )
    if method._reads_progress:
        if torch.compiler.is_compiling():
            raise ValueError(
                f"{name} has phases of training, which compiled code cannot read from progress; call "
                f"method.begin_step(step / total_steps) before each step"
            )
        method.phase = method.find_phase(float(progress))
    return ((batch, *args[1:]), kwargs) if args else (args, {**kwargs, "batch": batch})


def _check_values(method: Method, batch: Batch, progress: Tensor | float) -> None:
    """Raises `ValueError` for labels and a `progress` out of range; on a GPU in the method's first call only."""
    devices = {value.device.type for value in (*batch, progress) if isinstance(value, Tensor)}
    if devices != {"cpu"} and (method._values_were_checked or "meta" in devices):
        return
    check_labels(batch, method.task)
    if method.needs_index:
        assert batch.index is not None
        low, high = (int(value) for value in batch.index.aminmax())
        if low < 0 or high >= method.task.num_examples:
            raise ValueError(
                f"batch.index goes from {low} to {high}, and the task has {method.task.num_examples} images, its "
                f"num_examples"
            )
    is_number = isinstance(progress, Tensor | int | float)
    if not is_number or not 0 <= float(progress) <= 1:
        share = f"{float(progress):g}" if is_number else repr(progress)
        raise ValueError(f"progress={share} is the share of training done, between 0 and 1; give step / total_steps")


def _check_step(method: Method, args: tuple[Any, ...], step: Step) -> None:
    """Raises `ValueError` for a result that is no `Step`, and for a student whose scores are not the task's."""
    if not isinstance(step, Step):
        raise ValueError(
            f"{type(method).__name__}.forward returned a {type(step).__name__}; return Step(losses, logits), with the "
            f"loss terms by name"
        )
    logits, num_classes = step.logits, method.task.num_classes
    if logits.shape[1] != num_classes:
        raise ValueError(f"the student scores {logits.shape[1]} classes and the task has {num_classes}")
    if torch.compiler.is_compiling() or method._values_were_checked or logits.device.type == "meta":
        return
    for name, value in step.losses.items():
        if not isinstance(value, Tensor) or value.ndim:
            what = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise ValueError(
                f"the loss term {name!r} of {type(method).__name__} is {what}, and must be a scalar tensor"
            )
    if method.task.has_plain_loss and are_probabilities(logits):
        raise ValueError(
            f"the scores of {type(method.student).__name__} are probabilities, as after a softmax; let it return the "
            f"scores before that, as the loss has a softmax of its own"
        )
    method._values_were_checked = True
