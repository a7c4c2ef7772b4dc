"""A run folder: the recipe, the machine, the numbers, the checkpoints and the student of one training run.

Every file but the two logs is replaced whole or not at all: a run that is killed at any moment can be resumed. What a
folder holds is data: nothing in it is unpickled with code execution.
"""

import difflib
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

import torch
from torch import Tensor, nn
from torch.serialization import get_unsafe_globals_in_checkpoint

from .. import __version__
from ..config.files import dump
from ..config.read import read
from ..config.recipe import Recipe
from .environment import now

FORMAT = 1  # of student.json
Name = Literal["last", "best"]


class Run:
    """The folder of one training run. Readers work on every process; only one process may write."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def create(cls, path: str | Path, recipe: Recipe) -> "Run":
        """A new run; `recipe.yaml` is its first file and makes the folder a run.

        A folder that is empty, or in which nothing but a creation was cut short, is taken; any other is refused.
        """
        run = cls(path)
        if run.path.exists() and not run.path.is_dir():
            raise ValueError(f"{run.path} is a file; choose another `out=`")
        held = sorted(entry.name for entry in run.path.iterdir()) if run.path.exists() else []
        if "recipe.yaml" in held:
            raise ValueError(
                f"{run.path} already holds a run; choose another `out=` or continue it with `--resume {run.path}`"
            )
        foreign = [name for name in held if not name.startswith(".")]
        if foreign:
            raise ValueError(f"{run.path} holds other files, {foreign[0]} for one; choose another `out=`")
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            _write_text(run.path / "recipe.yaml", dump(recipe))
        except OSError as error:
            raise ValueError(f"{run.path} cannot be written ({error.strerror}); choose another `out=`") from error
        return run

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """The run that a folder holds."""
        run = cls(path)
        if (run.path / "recipe.yaml").is_file():
            return run
        if not run.path.exists():
            raise ValueError(f"there is no run folder {run.path}{_nearest(run.path)}")
        raise ValueError(f"{run.path} is not a run folder: it holds no recipe.yaml{_nearest(run.path)}")

    def recipe(self) -> Recipe:
        """Everything that decided the run, resolved."""
        return read(self.path / "recipe.yaml")

    def write_environment(self, facts: Mapping[str, Any]) -> None:
        """Keeps what `environment` found; that of a resumed run is listed under "resumed" of the first."""
        if first := self.read_environment():
            facts = first | {"resumed": [*first.get("resumed", []), dict(facts)]}
        write_json(self.path / "environment.json", facts)

    def read_environment(self) -> dict[str, Any]:
        """What `write_environment` was given; empty where it never was."""
        path = self.path / "environment.json"
        return _read_json(path) if path.exists() else {}

    def log(self, line: str) -> None:
        """Adds a line to train.log, with its time in UTC."""
        with open(self.path / "train.log", "a", encoding="utf-8") as file:
            file.write(f"{now()} {line}\n")

    def append(self, record: Mapping[str, Any]) -> None:
        """Adds a record to metrics.jsonl; tensors of one element become numbers, named tuples become objects."""
        with open(self.path / "metrics.jsonl", "a+b") as file:
            _cut_torn_line(file)
            file.write(json.dumps(_plain(record)).encode() + b"\n")

    def metrics(self) -> list[dict[str, Any]]:
        """All records, oldest first. A last line that was torn by a kill is left out."""
        path = self.path / "metrics.jsonl"
        lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
        records = []
        for number, line in enumerate(lines, start=1):
            try:
                records.append(json.loads(line))
            except ValueError:
                if number < len(lines):
                    raise ValueError(f"line {number} of {path} is damaged: it is not JSON") from None
        return records

    def rewind(self, step: int) -> None:
        """Drops the records of later steps than `step`, which a resumed run will write again, and of its end."""
        kept = [record for record in self.metrics() if record.get("step", 0) <= step and record.get("kind") != "end"]
        _write_text(self.path / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in kept))

    def save_checkpoint(self, state: Mapping[str, Any], name: Name = "last") -> None:
        """Replaces last.pt or best.pt; `ValueError` for a state that could not be read back without running code."""
        path, metrics = self.path / f"{name}.pt", self.path / "metrics.jsonl"
        if metrics.exists():
            _sync(metrics, os.O_RDWR)  # a checkpoint must not outlive the records of the steps before it
        with replacing(path) as temporary:
            torch.save(state, temporary)
            if code := get_unsafe_globals_in_checkpoint(temporary):
                raise ValueError(f"{path} could not be read again without running code ({code[0]}); keep plain values")

    def load_checkpoint(self, name: Name = "last") -> dict[str, Any]:
        """What `save_checkpoint` was given, on the CPU."""
        path = self.path / f"{name}.pt"
        if not path.is_file():
            raise ValueError(f"{self.path} holds no {path.name}: it ended before its first checkpoint; start it anew")
        try:
            with zipfile.ZipFile(path) as archive:
                if member := archive.testzip():  # torch.load compares no checksum
                    raise zipfile.BadZipFile(f"checksum of {member}")
            if not (code := get_unsafe_globals_in_checkpoint(path)):
                return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            other = name == "last" and (self.path / "best.pt").is_file()
            way = "copy best.pt over it and resume, or start the run anew" if other else "start the run anew"
            raise ValueError(f"{path} is truncated or damaged ({' '.join(str(error).split())[:120]}); {way}") from error
        raise ValueError(f"{path} is refused: reading it would run code ({', '.join(code)}); start the run anew")

    def save_student(self, state_dict: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Replaces student.safetensors and student.json, which together rebuild the plain network."""
        with replacing(self.path / "student.safetensors") as temporary:
            save_weights(temporary, state_dict)
        head = {"format": FORMAT, "selfdistill": __version__}
        write_json(self.path / "student.json", head | dict(about))


def load_student(run: str | Path) -> nn.Module:
    """The plain network that a run folder holds, with its weights, in eval mode, on the CPU.

    A student named `package.module:function` is built by calling that function: open such runs only where you trust
    them. The random state is left as it was.
    """
    run = Run.open(run)
    about = read_about(run.path)
    network = build_plain(about)
    load_strictly(network, run.path / "student.safetensors", about["student"]["name"])
    return network.eval()


def build_plain(about: Mapping[str, Any]) -> nn.Module:
    """The network that student.json describes, with fresh weights; the random state is left as it was."""
    from ..models import build_student

    student = dict(about["student"])
    name, shape, options = student.pop("name"), tuple(student.pop("image_shape")), student.pop("options")
    with torch.random.fork_rng(devices=[]):
        return build_student(name, image_shape=shape, kind=about["task"], **student, **options)


def read_about(run: str | Path) -> dict[str, Any]:
    """student.json of a run folder: classes, network, data, method, scores."""
    path = Run.open(run).path / "student.json"
    if not path.is_file():
        raise ValueError(f"{run} holds no student yet; continue the run with `--resume {run}`")
    about = _read_json(path)
    if about.get("format") != FORMAT:
        raise ValueError(
            f"{path} has format {about.get('format')}, written by selfdistill {about.get('selfdistill')}, and this "
            f"selfdistill, {__version__}, reads format {FORMAT}; upgrade it"
        )
    if missing := [name for name in ("student", "classes", "data", "task") if name not in about]:
        raise ValueError(f"{path} is damaged: it has no {missing[0]!r}")
    return about


def load_strictly(network: nn.Module, path: Path, name: str) -> None:
    """Loads a safetensors file into `network`; `ValueError` unless all keys and shapes agree."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise ValueError(f"{path.parent} holds no {path.name}; continue the run with `--resume {path.parent}`")
    try:
        weights = load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or damaged ({error}); train or export it anew") from None
    wanted = network.state_dict()
    shapes, given = ({key: tuple(value.shape) for key, value in part.items()} for part in (wanted, weights))
    wrong = [key for key in shapes | given if shapes.get(key) != given.get(key)]
    if wrong:
        has, needs = given.get(wrong[0], "nothing"), shapes.get(wrong[0], "nothing")
        more = f", and {len(wrong) - 1} more differ" if len(wrong) > 1 else ""
        raise ValueError(f"{path} does not fit {name}: for {wrong[0]} it holds {has} instead of {needs}{more}")
    network.load_state_dict(weights, strict=True)


def save_weights(path: Path, state_dict: Mapping[str, Any], metadata: Mapping[str, str] | None = None) -> None:
    """Writes a safetensors file under the network's own keys; shared weights are written under each of their names."""
    from safetensors.torch import save

    other = [name for name, value in state_dict.items() if not isinstance(value, Tensor)]
    if other:
        raise ValueError(f"{other[0]!r} of the student is no tensor, and a safetensors file can hold nothing else")
    form = torch.contiguous_format  # the format knows no other, and no two names for one memory: each is a copy
    plain = {name: value.detach().cpu().clone(memory_format=form) for name, value in state_dict.items()}
    path.write_bytes(save(plain, metadata={"format": "pt", **(metadata or {})}))  # save_file shuts other users out


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    _write_text(path, json.dumps(without_nan(_plain(values)), indent=2, ensure_ascii=False) + "\n")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; its file takes the place of `path` at the end, whole or not at all, a power cut included."""
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        yield temporary
        _sync(temporary, os.O_RDWR)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened, and the rename is durable by itself
        _sync(path.parent, os.O_RDONLY)


def _nearest(path: Path) -> str:
    """The hint with the run folder beside `path` that has the most similar name, or nothing."""
    siblings = [entry.parent.name for entry in path.parent.glob("*/recipe.yaml")]
    near = difflib.get_close_matches(path.name, siblings, n=1)
    return f"; did you mean {path.parent / near[0]}?" if near else ""


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a {type(values).__name__}, not names and values")
    return values


def without_nan(values: Any) -> Any:
    """Values in the types of JSON with None for nan and infinities, for which JSON has no word."""
    return json.loads(json.dumps(values), parse_constant=lambda name: None)


def _plain(value: Any) -> Any:
    """`value` in the types of JSON."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value.item() if hasattr(value, "item") else value


def _cut_torn_line(file: BinaryIO) -> None:
    """Ends a file that a kill left in the middle of a line after its last whole line."""
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
