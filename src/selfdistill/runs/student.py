"""The student of a run on disk: student.json, which describes the plain network, and student.safetensors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, StrictInt, StrictStr, ValidationError
from torch import Tensor, nn

from .. import __version__
from ..config.recipe import DataPart
from ..models import build_student
from .files import describe_problem, read_json, replace_file, write_json
from .folder import Run

FORMAT = 1  # of student.json


class NetworkCard(BaseModel):
    """What rebuilds a plain network with `build_student`."""

    model_config = ConfigDict(frozen=True)
    name: StrictStr
    options: dict[str, Any] = {}
    num_classes: StrictInt
    image_shape: tuple[StrictInt, StrictInt, StrictInt]  # (channels, height, width) of one training image


class MaskCard(BaseModel):
    """How masks show the classes of a segmenter, in the order of the classes."""

    model_config = ConfigDict(frozen=True)
    values: tuple[StrictInt, ...]
    colours: tuple[tuple[StrictInt, StrictInt, StrictInt], ...]  # red, green, blue, 0 to 255


class StudentCard(BaseModel):
    """student.json: the network, its classes, the images it takes, and how it was trained."""

    model_config = ConfigDict(frozen=True)
    task: StrictStr
    classes: tuple[StrictStr, ...]
    masks: MaskCard | None = None  # of a segmenter
    student: NetworkCard
    data: DataPart
    method: StrictStr
    weights: Literal["student", "ema"] = "student"  # "ema": the moving average of the student
    epoch: StrictInt = 0  # epochs trained, the last one perhaps in part
    step: StrictInt = 0
    scores: dict[str, Any] | None = None  # on the held-out images, by name


def read_card(run: str | Path) -> StudentCard:
    """student.json of a run folder; raises `ValueError` in one sentence if it is missing or damaged."""
    path = Run.open(run).path / "student.json"
    if not path.is_file():
        raise ValueError(f"{run} holds no student yet; continue the run with `--resume {run}`")
    values = read_json(path)
    if values.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {values.get('format')}, written by selfdistill {values.get('selfdistill')}, and this "
            f"selfdistill, {__version__}, reads format {FORMAT}; upgrade it"
        )
    try:
        return StudentCard.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path} is damaged: {describe_problem(error)}") from None


def load_student(run: str | Path) -> nn.Module:
    """The plain network of a run folder, with its weights, in eval mode, on the CPU.

    A student named `package.module:function` is built by calling that function, so open such runs only where you trust
    them. The random state is left as it was.

    Args:
        run: the run folder.

    Raises:
        ValueError: there is no run or no student, or its files do not fit together.
    """
    card = read_card(run)
    network = build_network(card)
    load_weights(network, Path(run) / "student.safetensors", card.student.name)
    return network.eval()


def save_student(run: Run, state_dict: Mapping[str, Any], card: StudentCard) -> None:
    """Replaces student.safetensors and student.json, which together rebuild the plain network."""
    with replace_file(run.path / "student.safetensors") as temporary:
        save_weights(temporary, state_dict)
    values = card.model_dump(mode="json")
    if card.masks is None:
        del values["masks"]
    write_json(run.path / "student.json", {"format": FORMAT, "selfdistill": __version__, **values})


def build_network(card: StudentCard) -> nn.Module:
    """The network of a card, with fresh weights; the random state is left as it was."""
    network = card.student
    with torch.random.fork_rng(devices=[]):
        return build_student(
            network.name,
            num_classes=network.num_classes,
            image_shape=network.image_shape,
            **network.options,
        )


def load_weights(network: nn.Module, path: Path, name: str) -> None:
    """Loads a safetensors file into `network`; `ValueError` unless all keys and shapes agree."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ValueError(f"{path.parent} holds no {path.name}; continue the run with `--resume {path.parent}`")
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or damaged ({error}); train or export it anew") from None
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    stored = {key: tuple(value.shape) for key, value in weights.items()}
    differing = [key for key in expected | stored if expected.get(key) != stored.get(key)]
    if differing:
        stored_shape, expected_shape = stored.get(differing[0], "nothing"), expected.get(differing[0], "nothing")
        more = f", and {len(differing) - 1} more differ" if len(differing) > 1 else ""
        raise ValueError(
            f"{path} does not fit {name}: for {differing[0]} it holds {stored_shape} instead of {expected_shape}{more}"
        )
    network.load_state_dict(weights, strict=True)


def save_weights(path: Path, state_dict: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file with the network's own keys; shared weights are written under each of their names."""
    from safetensors.torch import save

    for name, value in state_dict.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{name!r} of the student is no tensor, and a safetensors file can hold nothing else")
    # The format knows contiguous tensors only, and no two names for one memory: each is a copy.
    copies = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in state_dict.items()
    }
    # save_file would let only this user read the file.
    path.write_bytes(save(copies, metadata={"format": "pt", **(metadata or {})}))
