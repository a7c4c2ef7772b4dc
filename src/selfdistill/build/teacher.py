"""Trained methods from run folders: the teacher of another method, with the images that it knows."""

from pathlib import Path

import torch
from torch import nn

from ..config.recipe import DataPart, Recipe
from ..data import LabeledDataset
from ..data.datasets.image_io import GRAY
from ..method import Method
from ..methods import create_method
from ..runs.folder import Run
from ..runs.student import build_network, load_student, read_card
from ..tasks import find_task
from ..training.checkpoint import load_method


def load_teacher(folder: str, method_class: type[Method], *, trust: bool = False) -> nn.Module:
    """The network of a run folder; as a method, with its training-only parts, where `method_class` learns from these.

    Raises `ValueError` where another method trained it than `method_class` needs, and where it would run the code of a
    folder from somebody else, unless `trust`. The random state is left as it was.
    """
    if not method_class.teacher_method:
        return load_student(folder, trust=trust)
    name = Run.open(folder).recipe(trust=trust).method.name
    if name != method_class.teacher_method:
        raise ValueError(
            f"{method_class.__name__} learns from a run of method={method_class.teacher_method}, "
            f"and {folder} is one of {name}"
        )
    return rebuild_method(folder, trust=trust)


def rebuild_method(folder: str | Path, *, trust: bool = False) -> Method:
    """The method of a run folder as its last checkpoint has it, training-only parts included, on the CPU.

    For methods that neither have a teacher nor remember single images. Raises `ValueError` where the folder holds no
    checkpoint or would run code, unless `trust`. The random state is left as it was.
    """
    run, card = Run.open(folder), read_card(folder, trust=trust)
    part = run.recipe(trust=trust).method
    task = find_task(card.task).create_task(len(card.classes), card.student.image_shape)
    with torch.random.fork_rng(devices=[]):
        method = create_method(part.name, build_network(card), task, taps=part.taps, **part.hyperparameters)
    load_method(method, run.load_whole_checkpoint()[0])
    return method


def normalize_as_teacher(recipe: Recipe, *, trust: bool = False) -> DataPart:
    """The recipe's data settings with the channels, mean and std of the teacher's images, if there is a teacher.

    Raises `ValueError` where the recipe says otherwise.
    """
    data, folder = recipe.data, recipe.method.teacher
    if folder is None:
        return data
    teacher_data = read_card(folder, trust=trust).data
    normalization = {name: getattr(teacher_data, name) for name in ("channels", "mean", "std", "gray_range")}
    for name, value in normalization.items():
        if getattr(data, name) not in (None, value):
            raise ValueError(f"the teacher {folder} saw images with data.{name}={value}, not {getattr(data, name)}")
    return data.model_copy(update=normalization)


def note_channels(recipe: Recipe, images: LabeledDataset, channels: int) -> list[str]:
    """A sentence about images that lose their colors, or get three equal channels, because the teacher's were so."""
    if recipe.method.teacher is None or recipe.data.channels is not None:
        return []
    are_gray = all(image.mode in GRAY for image in images.formats)
    if are_gray == (channels == 1):
        return []
    kind = "gray" if channels == 1 else "in color"
    return [
        f"the images are read with data.channels={channels}, as those of the teacher {recipe.method.teacher}: {kind}"
    ]
