"""Builds objects from a recipe: the only file that knows every name."""

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from ..config.recipe import AUTO, MethodPart, MixPart, Recipe, StudentPart
from ..data import (
    BatchSampler,
    CachedDataset,
    EvalSet,
    LabeledDataset,
    OpenedData,
    TrainSet,
    eval_loader,
    image_shape,
    prepare_data,
)
from ..method import Method
from ..methods import create_method, find_method
from ..models import Origin, build_student
from ..runs.student import NetworkCard, StudentCard
from ..task import Batch, Task
from ..tasks import complete_recipe, find_task
from ..tasks.base import TaskKind
from ..training.device import choose_device, choose_precision
from ..training.experiment import Experiment, HeldOut
from ..training.optim import count_steps
from .arms import build_arm_recipe
from .automatic import Choice, choose_method, choose_plain_instead
from .checks import (
    check_around,
    check_labeled,
    check_memory,
    check_method,
    check_student_options,
    check_student_was_trained,
)
from .class_weights import choose_class_weights
from .evidence import EVIDENCE_NOTE, PLAIN, note_evidence
from .fine_tuning import (
    MethodSettings,
    choose_method_settings,
    choose_normalization,
    note_fine_tuning,
    note_short_run,
    tune_frozen,
)
from .origin import identify_object, note_origin
from .sources import forget_start, hash_sources
from .start import load_start
from .teacher import load_teacher, normalize_as_teacher, note_adapted, note_channels

TRAIN_SAMPLES = {"image": 2000, "pixel": 100}  # training images that are scored at a run's end, at most, by output


def build(
    recipe: Recipe,
    opened: OpenedData | None = None,
    *,
    trust: bool = False,
    goes_on: bool = False,
    around: Method | None = None,
) -> Experiment:
    """The experiment that a recipe describes; its own recipe has every value resolved and builds the same again.

    Experiments on the same data may share it, in `opened`. The student's initial weights depend on the recipe's seed
    and student alone, so methods start from the same ones. `trust`: whether run folders from somebody else, named as
    teacher or start, may run code (`runs.trust`). `goes_on`: whether a checkpoint follows, so that the weights that
    the student started from are not read again. `around`: a method that is there already, in place of the recipe's
    task, student and method. Raises `ValueError` in one sentence for whatever cannot work, before
    anything is trained.
    """
    if recipe.method.name == AUTO:
        plain = recipe.model_copy(update={"method": MethodPart(name=PLAIN)})
        return build_automatic(plain, opened or OpenedData(), trust=trust)[1]
    given, opened = recipe, opened or OpenedData()
    recipe = complete_recipe(recipe)
    task_kind, method_class = find_task(recipe.task.kind), find_method(recipe.method.name)
    check_method(recipe, task_kind, method_class)
    sources = hash_sources(forget_start(recipe) if goes_on else recipe, trust=trust)
    choose_precision(recipe)  # refuses before any image is read

    prepared = prepare_data(
        normalize_as_teacher(recipe, method_class, trust=trust),
        task_kind,
        cache=recipe.machine.cache,
        device=torch.device(choose_device(recipe)),
        opened=opened,
    )
    check_labeled(prepared)
    images, classes = prepared.splits.train, prepared.splits.train.classes
    class_weights, weight_notes = choose_class_weights(recipe.task, images, task_kind)
    normalization = choose_normalization(recipe, prepared.settings.channels or 3, trust=trust)
    task = (
        around.task
        if around is not None
        else Task(
            task_kind,
            len(classes),
            image_shape(prepared.settings),
            len(images),
            loss=recipe.task.loss,
            class_weights=class_weights,
            label_smoothing=recipe.task.label_smoothing,
            gamma=recipe.task.gamma,
        )
    )
    data = prepared.settings.model_copy(update=normalization)
    teacher = load_teacher(recipe, method_class, data, classes, task, trust=trust, goes_on=goes_on)

    plan = BatchSampler(len(images), recipe.batch_size, seed=recipe.seed, drop_last=recipe.data.drop_last)
    steps = count_steps(recipe, plan.steps_per_epoch)[0]

    torch.manual_seed(recipe.seed)
    part = forget_start(recipe).student if goes_on else recipe.student
    if around is None:
        student, start_notes = create_student(part, task, classes, trust=trust)
    else:
        check_around(around, len(classes), image_shape(prepared.settings), len(images))
        student, start_notes = around.student, []
    settings = MethodSettings()
    if around is None:
        settings = choose_method_settings(recipe, method_class, student, task.output, steps)
    precision = choose_precision(recipe, student)
    torch.manual_seed(recipe.seed + 1)
    method = around or create_method(
        recipe.method.name,
        student,
        task,
        taps=recipe.method.taps,
        teacher=teacher,
        total_steps=steps,
        **recipe.method.hyperparameters,
        **settings.chosen,
    )
    if around is None:
        check_memory(recipe, method, goes_on=goes_on)
    if not goes_on and around is None:
        check_student_was_trained(method, recipe.student)

    origin = identify_object(recipe, student, task)
    recipe = tune_frozen(given, recipe, student)
    data = data.model_copy(update={"drop_last": plan.drop_last})
    train_set = TrainSet(
        prepared.train,
        task_kind.train_transform(data),
        seed=recipe.seed,
        views=method_class.views,
        positives=method_class.positives,
    )
    values = {name: getattr(method, name) for name in method_class.hyperparameters()}
    resolved = recipe.model_copy(
        update={
            "data": data,
            "task": recipe.task.model_copy(update={"class_weights": class_weights}),
            "method": recipe.method.model_copy(update=values),
            "precision": precision,
            "out": recipe.out or find_free_folder(recipe),
        }
    )
    notes = [
        *(
            []
            if goes_on or around is not None
            else note_evidence(recipe.model_copy(update={"method": resolved.method}), opened)
        ),
        *prepared.notes,
        *start_notes,
        *weight_notes,
        *note_fine_tuning(given, recipe, normalization, settings),
        *note_dropped_images(plan),
        *note_balance(recipe, images),
        *note_short_run(settings, method_class.defaults(task.output), steps),
        *note_origin(recipe, origin, student),
        *note_adapted(method),
        *note_channels(recipe, images, task.image_shape[0]),
        *note_precision(recipe, precision),
        *note_idle_workers(recipe, train_set),
    ]
    return Experiment(
        recipe=resolved,
        method=method,
        train_set=train_set,
        held_out=None if prepared.held_out is None else create_eval_loader(prepared.held_out, resolved, task_kind),
        split=prepared.held_out_split,
        test=None if prepared.test is None else create_eval_loader(prepared.test, resolved, task_kind),
        train_sample=create_eval_loader(sample_evenly(images, task.output), resolved, task_kind),
        mix=create_mixer(recipe.mix, task, task_kind),
        card=describe_student(resolved, task, images, origin),
        fingerprint={
            name: dataset.fingerprint()
            for name, dataset in prepared.splits._asdict().items()
            if isinstance(dataset, LabeledDataset)
        },
        sources=sources,
        notes=tuple(dict.fromkeys(notes)),
    )


def build_automatic(base: Recipe, opened: OpenedData, *, trust: bool = False) -> tuple[Choice, Experiment]:
    """What method=auto stands for as an arm over a recipe, and the experiment with that; the choice is its first note.

    It is plain training where what was chosen cannot be trained: a student may have no feature map to tap.
    """
    choice = choose_method(complete_recipe(base), opened)
    try:
        experiment = build(build_arm_recipe(base, choice.arm), opened, trust=trust)
    except ValueError as error:
        if choice.arm == PLAIN:
            raise
        choice = choose_plain_instead(choice, error)
        experiment = build(build_arm_recipe(base, PLAIN), opened, trust=trust)  # says what is wrong with the recipe
    notes = [note for note in experiment.notes if not note.startswith(EVIDENCE_NOTE)]
    return choice, replace(experiment, notes=(choice.note, *notes))


def create_student(
    part: StudentPart, task: Task, classes: Sequence[str], *, trust: bool = False
) -> tuple[nn.Module, list[str]]:
    """The student with fresh weights, pretrained ones, or those of a run or a file; and what is said of the latter."""
    check_student_options(part.options)
    student = build_student(
        part.name,
        num_classes=task.num_classes,
        image_shape=task.image_shape,
        output=task.output,
        pretrained=part.pretrained,
        **part.options,
    )
    return student, [] if part.start is None else load_start(student, part, task, classes, trust=trust)


def create_mixer(settings: MixPart, task: Task, task_kind: TaskKind) -> Callable[[Batch], Batch] | None:
    """A function that mixes the images and labels of a batch, with torch's global generator; None for mix=none."""
    if settings.name == "none":
        return None
    mix = task_kind.mixers[settings.name].mix

    def mix_sometimes(batch: Batch) -> Batch:
        if settings.probability < 1 and torch.rand(()).item() >= settings.probability:
            return batch
        return mix(batch, task.num_classes, settings.alpha)

    return mix_sometimes


def sample_evenly(images: LabeledDataset, output: str) -> LabeledDataset:
    """At most 2,000 of the images, evenly spaced; fewer where each has many labels."""
    return images.subset(torch.tensor(images.sample(TRAIN_SAMPLES[output])))


def create_eval_loader(dataset: CachedDataset | LabeledDataset, recipe: Recipe, task: TaskKind) -> HeldOut:
    """The batches of a data set as evaluation shows them."""
    return functools.partial(
        eval_loader,
        EvalSet(dataset, task.eval_transform(recipe.data)),
        batch_size=task.eval_batch_size(recipe.data),
        workers=recipe.machine.workers,
    )


def describe_student(recipe: Recipe, task: Task, images: LabeledDataset, origin: Origin | None = None) -> StudentCard:
    """The content of student.json: the network, its classes and its images."""
    name, options = origin or (recipe.student.name, recipe.student.options)
    network = NetworkCard(
        name=name,
        options=options,
        num_classes=task.num_classes,
        image_shape=task.image_shape,
    )
    return StudentCard(
        task=task.kind,
        classes=tuple(images.classes),
        student=network,
        data=recipe.data,
        method=recipe.method.name,
        **images.describe_for_card(),
    )


def note_precision(recipe: Recipe, precision: str) -> list[str]:
    """A sentence about the precision, if the recipe leaves it open."""
    if recipe.precision != "auto":
        return []
    if precision != choose_precision(recipe):
        return [f"precision={precision}, as the student's depthwise convolutions are slower in bfloat16 on a CPU"]
    has = "has" if precision == "bf16" else "has no"
    return [f"precision={precision}, as this machine {has} bfloat16 arithmetic"]


def note_dropped_images(plan: BatchSampler) -> list[str]:
    """A sentence about the images that `drop_last` leaves out of each epoch."""
    if not (plan.num_dropped and plan.drop_last):
        return []
    return [f"{plan.describe_dropped()}; data.drop_last=false keeps them"]


def note_balance(recipe: Recipe, images: LabeledDataset) -> list[str]:
    """A sentence about how often a balanced epoch shows an image of the rarest and of the most frequent class."""
    if recipe.data.sampler != "balanced":
        return []
    counts = {name: count for name, count in zip(images.classes, images.counts().tolist(), strict=True) if count}
    rarest, commonest = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    times = {name: len(images) / len(counts) / counts[name] for name in (rarest, commonest)}
    return [
        f"data.sampler=balanced: an epoch shows an image of {rarest!r} {times[rarest]:.3g} times and one of "
        f"{commonest!r} {times[commonest]:.3g} times, on average"
    ]


def note_idle_workers(recipe: Recipe, train_set: TrainSet) -> list[str]:
    """A sentence about loader processes that have no images to load."""
    if not recipe.machine.workers or not train_set.samples.may_lie_on_device:
        return []
    return [f"machine.workers={recipe.machine.workers} has no effect on images that are kept on the device"]


def make_file_name(text: str) -> str:
    """A name for a file or folder that every system takes, and that no tool takes for another machine's (a colon).

    >>> make_file_name("hf:user/set frskd+beta=0")
    'hf_user_set_frskd+beta=0'
    """
    return re.sub(r"[^\w.+=-]+", "_", text)


def find_free_folder(recipe: Recipe) -> str:
    """runs/DATA-STUDENT-METHOD-MIX-sSEED, with a number behind it where that exists."""
    mix = [recipe.mix.name] if recipe.mix.name != "none" else []
    source = Path(recipe.data.source.removeprefix("object:")).stem
    parts = [source, recipe.student.name.partition(":")[2], recipe.method.name, *mix]
    name = make_file_name("-".join([*parts, f"s{recipe.seed}"]))
    folder, number = Path("runs") / name, 2
    while folder.exists():
        folder, number = Path("runs") / f"{name}-{number}", number + 1
    return str(folder)
