"""The student of a run on disk: student.json, which describes the plain network, and student.safetensors."""

import json
import os
from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)
from torch import nn

from .. import __version__
from ..config.recipe import DataPart, Recipe
from ..models import build_student
from .files import describe_problem, read_json, replace_file, replace_nan, to_plain, write_json
from .folder import Run
from .trust import (
    drop_fetching,
    hash_bytes,
    ignore_reaching_data,
    is_object,
    is_signed,
    refuse_code,
    serialize,
    sign,
)
from .weights import load_weights, save_weights

FORMAT = 1  # of student.json
Count = Annotated[StrictInt, Field(ge=1)]
Threshold = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Level = Annotated[StrictInt, Field(ge=0, lt=256)]  # of a color
WEIGHTS = ("student.safetensors", "student.next.safetensors")  # the second until the card of the same step is written

SHOWN = ("image_size", "channels", "mean", "std")  # settings of data by which images are shown to the student
RANGES = ("value_range", "gray_range")  # further ones, which not every run has


def refuse_facts(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a network; raises `ValueError` for what is no option."""
    for name in ("name", "num_classes", "image_shape", "output"):
        if name in options:
            raise ValueError(f"holds {name}, which is no option")
    return options


class NetworkCard(BaseModel):
    """What rebuilds a plain network with `build_student`."""

    model_config = ConfigDict(frozen=True)
    name: StrictStr
    options: Annotated[dict[str, Any], AfterValidator(refuse_facts)] = {}
    num_classes: Count
    image_shape: tuple[Count, Count, Count]  # (channels, height, width) of one training image


class MaskCard(BaseModel):
    """How masks show the classes of a segmenter, in the order of the classes."""

    model_config = ConfigDict(frozen=True)
    values: tuple[Annotated[StrictInt, Field(ge=-(2**15), lt=2**16)], ...]  # -1: of no mask that was trained on
    colours: tuple[tuple[Level, Level, Level], ...]  # red, green, blue


class StudentCard(BaseModel):
    """student.json: the network, its classes, the images it takes, and how it was trained."""

    model_config = ConfigDict(frozen=True, extra="forbid")
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
    weights_sha256: StrictStr | None = None  # of student.safetensors; None in cards of older versions
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None  # by which logits are to be divided
    thresholds: tuple[Threshold, ...] | None = None  # probabilities from which on an image is said to show each class

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> "StudentCard":
        """Everything that there is one of for each class, or for each channel, has as many."""
        classes, channels = self.student.num_classes, self.student.image_shape[0]
        counts: dict[str, tuple[Sized | None, int]] = {
            "classes": (self.classes, classes),
            "masks.values": (None if self.masks is None else self.masks.values, classes),
            "masks.colours": (None if self.masks is None else self.masks.colours, classes),
            "thresholds": (self.thresholds, classes),
            "data.mean": (self.data.mean, channels),
            "data.std": (self.data.std, channels),
        }
        for name, (values, count) in counts.items():
            if values is not None and len(values) != count:
                raise ValueError(f"{name} has {len(values)} items and should have {count}")
        if not self.data.allows_size(*self.student.image_shape[1:]):
            raise ValueError(
                f"student.image_shape has more pixels than data.max_megapixels={self.data.max_megapixels:g}"
            )
        if self.data.channels not in (None, channels):
            raise ValueError(f"data.channels={self.data.channels} and the network takes {channels}")
        return self


def read_card(run: str | Path, *, trust: bool = False) -> StudentCard:
    """student.json of a run folder; raises `ValueError` in one sentence if it is missing or damaged.

    A card that this machine did not write is read as `runs.trust` says, unless `trust`: it may name no code outside
    the package, and its settings that reach the network or other folders are as by default.
    """
    folder = Run.open(run)
    path = folder.path / "student.json"
    if not path.is_file():
        raise ValueError(f"{run} holds no student yet; continue the run with `--resume {run}`")
    try:
        values = read_json(path)
    except ValueError as error:
        raise ValueError(f"{error}; continue the run with `--resume {run}`, which writes it anew") from None
    if values.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {values.get('format')}, written by selfdistill {values.get('selfdistill')}, and this "
            f"selfdistill, {__version__}, reads format {FORMAT}; upgrade it"
        )
    _, checksum = values.pop("signature", None), values.pop("checksum", None)
    if checksum not in (None, hash_bytes(serialize(values))):
        raise ValueError(
            f"{path} was damaged or changed after it was written; copy it anew or continue the run with "
            f"`--resume {run}`, or delete its last lines, checksum and signature, if you changed it yourself"
        )
    try:
        fields = {name: value for name, value in values.items() if name not in ("format", "selfdistill")}
        card = StudentCard.model_validate_json(json.dumps(fields))
    except ValidationError as error:
        raise ValueError(f"{path} is damaged: {describe_problem(error)}") from None
    if trust or is_own_card(run):
        return card
    refuse_code(folder.path, [("task", card.task), ("student", card.student.name)])
    return card.model_copy(update={"data": ignore_reaching_data(card.data)})


def is_own_card(run: str | Path) -> bool:
    """Whether this machine wrote student.json, beside the recipe that lies there, and nobody changed it."""
    folder = Run.open(run)
    values = read_json(folder.path / "student.json")
    signature, _ = values.pop("signature", None), values.pop("checksum", None)
    return is_signed(_get_signed_content(folder, values), signature)


def describe_other_run(run: str | Path, card: StudentCard) -> str:
    """Why the student in a run folder seems to be of another run than its recipe.yaml; empty if it does not."""
    folder = Run.open(run)
    try:
        recipe = folder.recipe(trust=True)  # compared, not built
    except ValueError:  # the student's card is enough to use it
        return ""
    settings = {
        "task": (card.task, recipe.task.kind),
        "student": (card.student.name, recipe.student.name),
        "method": (card.method, recipe.method.name),
        **{f"data.{name}": (getattr(card.data, name), getattr(recipe.data, name)) for name in SHOWN},
    }
    path = folder.path / "student.json"
    for name, (of_card, of_recipe) in settings.items():
        if of_card != of_recipe and not is_object(of_recipe if isinstance(of_recipe, str) else None):
            return f"{path} is of another run: it says {name}={of_card}, and recipe.yaml says {name}={of_recipe}"
    if folder.is_own and "signature" in read_json(path) and not is_own_card(run):
        return f"{path} is of another run or machine: this machine did not write it beside this recipe.yaml"
    return ""


def read_complete_card(run: str | Path, *, trust: bool = False) -> StudentCard:
    """As `read_card`; raises `ValueError` also for a card that does not tell how images are shown to the student."""
    card = read_card(run, trust=trust)
    for name in ("source", *SHOWN):
        if getattr(card.data, name) is None:
            raise ValueError(f"{Path(run) / 'student.json'} is damaged: it has no 'data.{name}'")
    if not isinstance(card.data.image_size, tuple):
        raise ValueError(f"{Path(run) / 'student.json'} is damaged: data.image_size is no height and width")
    return card


def load_student(run: str | Path, *, trust: bool = False) -> nn.Module:
    """The plain network of a run folder, with its weights, in eval mode, on the CPU.

    A student or a task named `package.module:name` is code that loading, and `eval`, `predict` and `export` too,
    imports and runs. So a folder that names such code is refused unless this machine wrote it, or you trust it. The
    random state is left as it was.

    Args:
        run: the run folder.
        trust: whether to run the code that a folder from somebody else names.

    Raises:
        ValueError: there is no run or no student, its files are damaged or do not fit together, or it would run code.
    """
    card = read_card(run, trust=trust)
    network = build_network(card)
    load_trained_weights(network, run, card)
    return network.eval()


def save_student(run: Run, state_dict: Mapping[str, Any], card: StudentCard) -> None:
    """Replaces student.safetensors and student.json, which together rebuild the plain network.

    A kill at any moment leaves a card and the weights that it names: the new ones lie beside the old ones first.
    """
    weights, next_weights = (run.path / name for name in WEIGHTS)
    with replace_file(next_weights) as temporary:
        save_weights(temporary, state_dict)
    _write_card(run, card.model_copy(update={"weights_sha256": hash_bytes(next_weights.read_bytes())}), is_own=True)
    os.replace(next_weights, weights)


def store_temperature(path: str | Path, temperature: float, *, trust: bool = False) -> None:
    """Adds the temperature to student.json; the weights stay, and a card of somebody else stays somebody else's.

    Raises `ValueError` where another process trains the run, and as `read_card`.
    """
    run = Run.open(path)
    with run.lock():
        own, card = is_own_card(path), read_card(path, trust=True)
        if not own and not trust:
            raise ValueError(f"{path} is not signed by this machine, and its student.json is not written; say --trust")
        _write_card(run, card.model_copy(update={"temperature": temperature}), is_own=own)


def replace_recipe(run: Run, recipe: Recipe) -> None:
    """Writes another recipe.yaml beside the student, whose card is signed anew if this machine had signed it."""
    has_card = (run.path / "student.json").is_file()
    own, card = (is_own_card(run.path), read_card(run.path, trust=True)) if has_card else (False, None)
    run.replace_recipe(recipe)
    if card is not None:
        _write_card(run, card, is_own=own)


def _write_card(run: Run, card: StudentCard, *, is_own: bool) -> None:
    """Replaces student.json, which is signed if it `is_own`; what does not concern a student is left out."""
    left_out = {name for name in ("masks", "temperature", "thresholds") if getattr(card, name) is None}
    values = card.model_dump(mode="json", exclude=left_out)
    values = replace_nan(to_plain({"format": FORMAT, "selfdistill": __version__, **values}))
    signature = sign(_get_signed_content(run, values)) if is_own else None
    write_json(run.path / "student.json", {**values, "checksum": hash_bytes(serialize(values)), "signature": signature})


def _get_signed_content(run: Run, values: Mapping[str, Any]) -> bytes:
    """What the signature of a card covers: its values, and the recipe that it lies beside."""
    return serialize(values) + run.hash_recipe().encode()


def build_network(card: StudentCard) -> nn.Module:
    """The network of a card, with fresh weights; the random state is left as it was.

    Its options that fetch weights or open files are left out, as its own weights follow.
    """
    network = card.student
    with torch.random.fork_rng(devices=[]):
        return build_student(
            network.name,
            num_classes=network.num_classes,
            image_shape=network.image_shape,
            **drop_fetching(network.options),
        )


def has_whole_student(run: Run) -> bool:
    """Whether the card and the weights are there and undamaged; imports no code and builds no network."""
    try:
        find_weights(run.path, read_card(run.path, trust=True))
    except ValueError:
        return False
    return True


def load_trained_weights(network: nn.Module, run: str | Path, card: StudentCard, *, name: str | None = None) -> None:
    """Loads the weights that a card describes into `network`, which is called `name` in errors.

    Raises `ValueError` for weights that are missing, damaged, of another step than the card, or of another network.
    """
    load_weights(network, find_weights(run, card), name or card.student.name)


def find_weights(run: str | Path, card: StudentCard) -> Path:
    """The file that has the checksum of the card; cards of older versions have none. Errors as above."""
    paths = [path for file in WEIGHTS if (path := Path(run) / file).is_file()]
    if not paths:
        raise ValueError(f"{run} holds no {WEIGHTS[0]}; continue the run with `--resume {run}`")
    for path in paths:
        if card.weights_sha256 in (None, hash_bytes(path.read_bytes())):
            return path
    raise ValueError(
        f"{paths[0]} is damaged or of another step than student.json, whose checksum it does not have; copy the "
        f"folder anew, or continue the run with `--resume {run}`, which writes both"
    )
