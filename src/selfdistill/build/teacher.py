"""Teachers: networks of runs, files and libraries, shown images as they know them; and whole methods of runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from ..config.recipe import DataPart, Recipe
from ..data import LabeledDataset
from ..data.datasets.conversion import GRAY
from ..method import Method
from ..methods import create_method
from ..models import Adapted, build_student, describe_weights, from_function
from ..runs.folder import Run
from ..runs.state_dicts import find_weights_file
from ..runs.student import RANGES, StudentCard, build_network, load_student, read_card
from ..runs.trust import is_network, is_object
from ..task import Task
from ..tasks import find_task, starts_trained
from ..training.checkpoint import load_method
from .checks import check_same_data
from .start import load_whole


class Teacher(NamedTuple):
    """A trained network, with the images and the classes that it knows."""

    net: nn.Module
    classes: Sequence[Sequence[str]] | None  # the names of each class; None: those of the data, in their order
    image_shape: tuple[int, int, int]
    mean: Sequence[float] | None  # None, and `std` too: it knows images as the student does
    std: Sequence[float] | None


def load_teacher(
    recipe: Recipe,
    method_class: type[Method],
    data: DataPart,
    classes: Sequence[str],
    task: Task,
    *,
    trust: bool = False,
    goes_on: bool = False,
) -> nn.Module | None:
    """The network that a recipe names as teacher; None where it names none.

    It is a method, with its training-only parts, where `method_class` learns from these. Images of another size or
    normalization are adapted to what it knows, and its classes are found by name. `goes_on`: whether a checkpoint with
    its weights follows. Raises `ValueError` where another method trained it than `method_class` needs, where it does
    not know the classes, and where it would run the code of a folder from somebody else, unless `trust`. The random
    state is left as it was.
    """
    name = recipe.method.teacher
    if name is None:
        return None
    if method_class.teacher_method and is_object(name):
        return take_method(name, method_class, task)
    if method_class.teacher_method:
        trained_by = Run.open(name).recipe(trust=trust).method.name
        if trained_by != method_class.teacher_method:
            raise ValueError(
                f"{method_class.__name__} learns from a run of method={method_class.teacher_method}, "
                f"and {name} is one of {trained_by}"
            )
        check_same_data(read_card(name, trust=trust), name, classes, task.image_shape)
        return rebuild_method(name, trust=trust)
    if method_class.soft_label_terms and find_weights_file(name) is None and not is_network(name):
        refuse_other_labels(read_card(name, trust=trust), name, task)
    with torch.random.fork_rng(devices=[]):
        teacher = find_teacher(recipe, data, task, trust=trust, goes_on=goes_on)
    return adapt(teacher, name, data, classes, task)


def take_method(name: str, method_class: type[Method], task: Task) -> Method:
    """The trained method that a Python program lends as teacher; raises `ValueError` for another one's."""
    options = {"pretrained": False, "options": {}}
    teacher = from_function.build(name, num_classes=task.num_classes, image_shape=task.image_shape, **options)
    method_class.refuse_wrong_teacher(teacher)
    assert isinstance(teacher, Method), "refused just now"
    if teacher.task.image_shape != task.image_shape:
        known, given = ("x".join(map(str, shape)) for shape in (teacher.task.image_shape, task.image_shape))
        raise ValueError(f"the teacher of {method_class.__name__} knows images of {known}, and these are {given}")
    return teacher


def refuse_other_labels(card: StudentCard, folder: str, task: Task) -> None:
    """Raises `ValueError` for a run whose class scores mean something else than the task's."""
    if (other := find_task(card.task).target) != task.target:
        raise ValueError(
            f"the teacher {folder} learned task={card.task}, with labels of the form {other}, and its scores do not "
            f"compare with those of task={task.kind}; name a run of this task, or take a method that compares features"
        )


def find_teacher(recipe: Recipe, data: DataPart, task: Task, *, trust: bool, goes_on: bool) -> Teacher:
    """The network of a run, of a file, of a library, or of a function of the user's own."""
    name, network = recipe.method.teacher or "", recipe.method.teacher_network
    if (file := find_weights_file(name)) is not None:
        if network is None:
            raise ValueError(
                f"method.teacher={name} is a file of weights; say whose with method.teacher_network, such as timm:NAME"
            )
        public = describe_weights(network) if task.image_shape[0] == 3 else None
        net = build_student(network, num_classes=task.num_classes, image_shape=task.image_shape, output=task.output)
        load_whole(net, file, task, name=network)
        return Teacher(net, None, task.image_shape, public and public.mean, public and public.std)
    if network is not None:
        raise ValueError(
            f"method.teacher_network={network} is for a file of weights, and method.teacher={name} is none"
        )
    if not is_network(name):
        card = read_card(name, trust=trust)
        net = load_student(name, trust=trust)
        return Teacher(
            net, [[label] for label in card.classes], card.student.image_shape, card.data.mean, card.data.std
        )
    public = describe_weights(name)
    if public is None:
        net = build_student(name, num_classes=task.num_classes, image_shape=task.image_shape, output=task.output)
        return Teacher(net, None, task.image_shape, None, None)
    size = public.size if public.size and task.output == "image" else task.image_shape[1:]
    num_classes = len(public.classes) if public.classes else task.num_classes
    shape = (len(public.mean), *size)
    net = build_student(name, num_classes=num_classes, image_shape=shape, output=task.output, pretrained=not goes_on)
    return Teacher(net, public.classes, shape, public.mean, public.std)


def adapt(teacher: Teacher, name: str, data: DataPart, classes: Sequence[str], task: Task) -> nn.Module:
    """The teacher for the student's images and classes; itself where it knows them as they are.

    Raises `ValueError` for a class that it does not know, and for channels that cannot be made into its own.
    """
    assert data.mean is not None and data.std is not None
    index = None if teacher.classes is None else match_classes(classes, teacher.classes, name)
    index = None if index == [*range(len(teacher.classes or ()))] else index
    own_mean, own_std = teacher.mean or data.mean, teacher.std or data.std
    size = (
        teacher.image_shape[1:] if task.output == "image" and teacher.image_shape[1:] != task.image_shape[1:] else None
    )
    is_same = [*own_mean] == [*data.mean] and [*own_std] == [*data.std] and size is None
    if is_same and index is None:
        return teacher.net
    channels, own_channels = len(data.mean), len(own_mean)
    if channels != own_channels and {channels, own_channels} != {1, 3}:
        raise ValueError(f"the teacher {name} takes images of {own_channels} channels, and these have {channels}")
    return Adapted(
        teacher.net, mean=data.mean, std=data.std, own_mean=own_mean, own_std=own_std, size=size, classes=index
    )


def match_classes(classes: Sequence[str], known: Sequence[Sequence[str]], teacher: str) -> list[int]:
    """For each class of the data the score of the teacher that is its, by name.

    Raises `ValueError` for a class that the teacher does not know.

    >>> match_classes(["tench", "Cock"], [["n01", "cock"], ["n02", "tench", "Tinca tinca"]], "it")
    [1, 0]
    """
    places = {spelled: place for place, names in enumerate(known) for spelled in names}
    simple = {_simplify(spelled): place for spelled, place in reversed(places.items())}
    index = []
    for name in classes:
        place = places.get(name, simple.get(_simplify(name)))
        if place is None:
            raise ValueError(
                f"the teacher {teacher} does not know the class {name!r}; give "
                f"one that was trained on these {len(classes)} classes, or name the classes as it does"
            )
        index.append(place)
    return index


def _simplify(name: str) -> str:
    return name.lower().replace("_", " ").replace("-", " ").strip()


def rebuild_method(folder: str | Path, *, trust: bool = False) -> Method:
    """The method of a run folder as its last checkpoint has it, training-only parts included, on the CPU.

    For methods that neither have a teacher nor remember single images. Raises `ValueError` where the folder holds no
    checkpoint or would run code, unless `trust`. The random state is left as it was.
    """
    run, card = Run.open(folder), read_card(folder, trust=trust)
    part = run.recipe(trust=trust).method
    task = Task(card.task, len(card.classes), card.student.image_shape)
    with torch.random.fork_rng(devices=[]):
        method = create_method(part.name, build_network(card), task, taps=part.taps, **part.hyperparameters)
    load_method(method, run.load_whole_checkpoint()[0])
    return method


def normalize_as_teacher(recipe: Recipe, method_class: type[Method], *, trust: bool = False) -> DataPart:
    """The recipe's data settings with the channels, mean and std of the teacher's images, where these are left open.

    Images that the recipe describes otherwise, and those of a student with trained weights, stay as they are: a plain
    teacher is adapted to them. Raises `ValueError` where the teacher is a whole method, which cannot be.
    """
    data, folder = recipe.data, recipe.method.teacher
    if folder is None or is_network(folder) or find_weights_file(folder) is not None:
        return data
    teacher_data = read_card(folder, trust=trust).data
    normalization = {name: getattr(teacher_data, name) for name in ("channels", "mean", "std", *RANGES)}
    differing = [name for name, value in normalization.items() if getattr(data, name) not in (None, value)]
    if (differing and method_class.teacher_method) or {*RANGES} & {*differing}:
        name = differing[0]
        raise ValueError(
            f"the teacher {folder} saw images with data.{name}={normalization[name]}, not {getattr(data, name)}"
        )
    if differing or (starts_trained(recipe) and not method_class.teacher_method):
        return data
    return data.model_copy(update=normalization)


def note_adapted(method: Method) -> list[str]:
    """A sentence about a teacher that sees images otherwise than the student does."""
    teacher = None if method.teacher is None else method.teacher.net
    if not isinstance(teacher, Adapted):
        return []
    mean, std = (" ".join(f"{value:g}" for value in part.flatten()) for part in (teacher.own_mean, teacher.own_std))
    size = "" if teacher.size is None else f"resized to {teacher.size[0]}x{teacher.size[1]} and "
    classes = "" if teacher.classes is None else "; its classes are found by name"
    return [f"the teacher is shown the images {size}normalized by its own mean {mean} and std {std}{classes}"]


def note_channels(recipe: Recipe, images: LabeledDataset, channels: int) -> list[str]:
    """A sentence about images that lose their colors, or get three equal channels, because the teacher's were so."""
    folder = recipe.method.teacher
    if folder is None or recipe.data.channels is not None or is_network(folder) or starts_trained(recipe):
        return []
    are_gray = all(image.mode in GRAY for image in images.formats)
    if are_gray == (channels == 1):
        return []
    kind = "gray" if channels == 1 else "in color"
    return [
        f"the images are read with data.channels={channels}, as those of the teacher {recipe.method.teacher}: {kind}"
    ]
