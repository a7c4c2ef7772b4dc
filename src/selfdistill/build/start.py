"""The weights that a student starts from: those of another run, or of a file."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config.recipe import StudentPart
from ..models import build_student
from ..runs.state_dicts import find_weights_file, read_state_dicts
from ..runs.student import StudentCard, find_weights, load_trained_weights, read_card
from ..runs.weights import is_finite
from ..task import Task
from .matching import COUNTERS, Match, match_tensors

MOST_NAMES = 2  # that a sentence lists


class Loaded(NamedTuple):
    """What became of a file's tensors, by the network's names."""

    match: Match
    fitting: dict[str, Tensor]
    adapted: list[str]  # to the number of channels, or to the grid of patches
    head: list[str]  # of another number of classes
    misshapen: list[str]
    missing: list[str]


def load_start(
    student: nn.Module, part: StudentPart, task: Task, classes: Sequence[str], *, trust: bool = False
) -> list[str]:
    """Loads `student.start` into the student, and gives sentences about it; what does not fit stays as it was drawn.

    Raises `ValueError` for what cannot be read, and where next to nothing fits.
    """
    assert part.start is not None
    if (path := find_weights_file(part.start)) is not None:
        loaded = _load(student, read_state_dicts(path), task, where=part.start, name=part.name or "the student")
        _redraw(student, loaded.head)
        return _describe(loaded, student, part.start, task)
    card = read_card(part.start, trust=trust)
    _check_channels(card, part.start, task)
    if card.classes == tuple(classes) and card.student.image_shape == task.image_shape:
        load_trained_weights(student, part.start, card, name=part.name)
        return []
    (stored,) = read_state_dicts(find_weights(part.start, card)).values()
    head = set() if card.classes == tuple(classes) else _find_head(part, task)
    kept = {name: value for name, value in stored.items() if name not in head}
    loaded = _load(student, {"": kept}, task, where=part.start, name=part.name or "the student")
    _redraw(student, [*loaded.head, *head])
    return _describe(loaded, student, part.start, task, of_other_classes=head)


def load_whole(network: nn.Module, path: Path, task: Task, *, name: str) -> None:
    """Loads a file into a network that is not trained any more; raises `ValueError` where a tensor is missing."""
    loaded = _load(network, read_state_dicts(path), task, where=str(path), name=name)
    if differing := [*loaded.head, *loaded.misshapen, *loaded.missing]:
        raise ValueError(
            f"{path} does not fit {name} for {task.num_classes} classes: it has no {differing[0]} of the same shape, "
            f"and {len(differing) - 1} more differ"
        )


def _load(
    student: nn.Module, stored: Mapping[str, Mapping[str, Tensor]], task: Task, *, where: str, name: str
) -> Loaded:
    network = {key: value for key, value in student.state_dict().items() if isinstance(value, Tensor)}
    match = match_tensors(stored, network)
    if match is None:
        in_file = [key for tensors in stored.values() for key in tensors]
        raise ValueError(
            f"next to nothing in {where} fits {name}, by name and shape: the file has {_list(in_file)}, and the "
            f"network {_list(list(network))}; give weights of this network"
        )
    loaded = _sort(match, network, student, task)
    broken = next((key for key, value in loaded.fitting.items() if not is_finite(value)), None)
    if broken is not None:
        raise ValueError(f"{where} holds NaN or infinite values, in {broken} for one")
    student.load_state_dict(loaded.fitting, strict=False)
    return loaded


def _sort(match: Match, network: Mapping[str, Tensor], student: nn.Module, task: Task) -> Loaded:
    loaded = Loaded(match, {}, [], [], [], [])
    for name, value in network.items():
        stored = match.tensors.get(name)
        if stored is None:
            if not name.endswith(COUNTERS):
                loaded.missing.append(name)
        elif stored.shape == value.shape:
            loaded.fitting[name] = stored
        elif (fitted := _adapt(name, stored, value, student)) is not None:
            loaded.fitting[name] = fitted
            loaded.adapted.append(name)
        elif stored.shape[1:] == value.shape[1:] and value.shape[0] == task.num_classes:
            loaded.head.append(name)
        else:
            loaded.misshapen.append(name)
    return loaded


def _adapt(name: str, stored: Tensor, value: Tensor, student: nn.Module) -> Tensor | None:
    """A first convolution for other than 3 channels, or position embeddings for another grid; None for the rest."""
    from timm.layers import resample_abs_pos_embed
    from timm.models import adapt_input_conv

    if stored.ndim == value.ndim == 4 and stored.shape[1] == 3 and stored[:, 0].shape == value[:, 0].shape:
        return adapt_input_conv(value.shape[1], stored)
    grid = getattr(getattr(student, "patch_embed", None), "grid_size", None)
    is_embedding = name.endswith("pos_embed") and stored.ndim == value.ndim == 3 and stored.shape[2] == value.shape[2]
    if not is_embedding or grid is None:
        return None
    prefix = value.shape[1] - grid[0] * grid[1]
    side = (stored.shape[1] - prefix) ** 0.5
    if prefix < 0 or side != int(side):
        return None
    return resample_abs_pos_embed(stored, list(grid), num_prefix_tokens=prefix)


def _check_channels(card: StudentCard, start: str, task: Task) -> None:
    channels, needed = card.student.image_shape[0], task.image_shape[0]
    if channels not in (3, needed):
        sizes = ["x".join(map(str, shape)) for shape in (card.student.image_shape, task.image_shape)]
        raise ValueError(
            f"the student of {start} takes images of {sizes[0]}, and these are {sizes[1]}; set data.channels={channels}"
        )


def _find_head(part: StudentPart, task: Task) -> set[str]:
    """The names of the tensors whose shape follows from the number of classes."""
    shapes = []
    facts = {"image_shape": task.image_shape, "output": task.output, **part.options}
    with torch.random.fork_rng(devices=[]):
        for num_classes in (task.num_classes, task.num_classes + 1):
            network = build_student(part.name or "", num_classes=num_classes, **facts)
            shapes.append({name: value.shape for name, value in network.state_dict().items()})
    return {name for name, shape in shapes[0].items() if shapes[1].get(name) != shape}


def _redraw(student: nn.Module, head: Collection[str]) -> None:
    """Draws a head's weights as torch does, in proportion to the features that it reads.

    Some networks draw them wider, for training from scratch: timm's EfficientNets by the number of classes, so that
    with few of them the first losses are high, and the gradients disturb the weights that were loaded.
    """
    for name in dict.fromkeys(name.rpartition(".")[0] for name in head):
        module = student.get_submodule(name)
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.reset_parameters()


def _describe(
    loaded: Loaded, student: nn.Module, start: str, task: Task, *, of_other_classes: Collection[str] = ()
) -> list[str]:
    """A sentence on what was loaded, and one on what was not and why."""
    match = loaded.match
    source = [f"nested under {match.label!r}"] if match.label else []
    source += [f"without the prefix {match.removed!r}"] if match.removed else []
    source += [f"into {match.added!r}"] if match.added else []
    source += ["by their order, as the names differ and all shapes agree"] if match.by_order else []
    source += [f"{_list(loaded.adapted)} resampled for these images"] if loaded.adapted else []
    total = len(student.state_dict())
    notes = [f"student.start={start}: {len(loaded.fitting)} of {total} tensors are loaded"]
    notes[0] += f" ({', '.join(source)})" if source else ""
    if match.tensors and not (loaded.head or loaded.missing) and not loaded.misshapen:
        notes[0] += "; the scores are taken to be of these classes, in this order"
    reasons = []
    if loaded.head:
        classes = match.tensors[loaded.head[0]].shape[0]
        reasons.append(f"{_list(loaded.head)} ({classes} classes in the file, {task.num_classes} here)")
    reasons += [f"{_list(loaded.misshapen)} (of another shape in the file)"] if loaded.misshapen else []
    others = [name for name in loaded.missing if name in of_other_classes]
    reasons += [f"{_list(others)} (of other classes in that run)"] if others else []
    missing = [name for name in loaded.missing if name not in of_other_classes]
    reasons += [f"{_list(missing)} (missing in the file)"] if missing else []
    notes += [f"drawn anew: {'; '.join(reasons)}"] if reasons else []
    left = [name for name in match.left if not name.endswith(COUNTERS)]
    notes += [f"not used, as the network has no such tensors: {_list(left)}"] if left else []
    return notes


def _list(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
