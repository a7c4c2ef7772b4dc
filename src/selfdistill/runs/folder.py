"""A run folder: the recipe, the environment, the log, the checkpoints and the student of one training run.

Every file except the two logs is replaced whole or not at all, so a run that is killed at any moment can be resumed.
A folder holds data only: nothing in it is unpickled with code execution.
"""

import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch.serialization import get_unsafe_globals_in_checkpoint

from ..config.files import dump, load_yaml
from ..config.read import change, read
from ..config.recipe import Recipe
from ..errors import did_you_mean, escape_controls, flatten_message
from ..metrics.outcomes import Outcomes
from .environment import Environment, now
from .files import (
    CheckedFile,
    append_to,
    cut_torn_line,
    describe_problem,
    make_folders,
    read_json,
    replace_file,
    sync,
    write_json,
    write_text,
)
from .lock import FolderTaken, lock_folder
from .outcomes import read_outcomes, save_outcomes
from .records import AnyRecord, EndRecord, Record, from_line, to_line
from .trust import (
    hash_bytes,
    ignore_reaching,
    is_signed_text,
    list_code,
    refuse_code,
    refuse_unpacking,
    sign_text,
)

LAST, BEFORE_LAST = "last.pt", "last.1.pt"  # the checkpoint, and the one before it
BEST = "best"  # the folder of the best student, by the validation images


class Run:
    """The folder of one training run. Readers work on every process; only one process may write."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._is_locked = False
        self._last_is_damaged = False

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes from writing; raises `ValueError` that names the one that does. It may be nested."""
        if self._is_locked:
            yield
            return
        with lock_folder(self.path):
            self._is_locked = True
            try:
                yield
            finally:
                self._is_locked = False

    @classmethod
    def create(cls, path: str | Path, recipe: Recipe) -> "Run":
        """A new run; `recipe.yaml` is its first file and makes the folder a run.

        Takes an empty folder, or one where a creation was interrupted. Raises `ValueError` for any other.
        """
        with cls.begin(path, recipe) as run:
            return run

    @classmethod
    @contextmanager
    def begin(cls, path: str | Path, recipe: Recipe) -> Iterator["Run"]:
        """As `create`, and keeps other processes from writing until the block ends.

        They see the run from its first file on, and none may go on with what this one is about to train.
        """
        run = cls(path)
        _refuse_taken(run.path)
        with ExitStack() as stack:
            try:
                run.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(run.lock())
                _refuse_taken(run.path)  # by another process that started at the same moment
                write_text(run.path / "recipe.yaml", sign_text(dump(recipe)))
            except OSError as error:
                raise ValueError(f"{run.path} cannot be written ({error.strerror}); choose another `out=`") from error
            yield run

    def replace_recipe(self, recipe: Recipe) -> None:
        """Writes another recipe.yaml, which is signed if the one before was."""
        is_own, was_edited, environment = self.is_own, self.is_recipe_edited(), self.environment()
        write_text(self.path / "recipe.yaml", sign_text(dump(recipe)) if is_own else dump(recipe))
        if environment is not None and not was_edited:
            environment = environment.model_copy(update={"recipe": self.hash_recipe()})
            write_json(self.path / "environment.json", environment.model_dump())

    @classmethod
    def open(cls, path: str | Path) -> "Run":
        """The run in a folder; raises `ValueError` if there is none."""
        run = cls(path)
        if (run.path / "recipe.yaml").is_file():
            return run
        if not run.path.exists():
            raise ValueError(f"there is no run folder {run.path}{_suggest(run.path)}")
        raise ValueError(f"{run.path} is not a run folder: it holds no recipe.yaml{_suggest(run.path)}")

    @property
    def is_own(self) -> bool:
        """Whether this machine wrote recipe.yaml, and nobody changed it."""
        return is_signed_text((self.path / "recipe.yaml").read_bytes())

    def recipe(self, words: Iterable[str] = (), *, trust: bool = False) -> Recipe:
        """Everything that decided the run, resolved, with `name=value` words applied over it.

        A recipe that this machine did not write is read as `runs.trust` says, unless `trust`: it may name no code
        outside the package, and its settings that reach the network or other folders are as by default.
        """
        values = load_yaml(self.path / "recipe.yaml")
        if not values:
            raise ValueError(f"{self.path / 'recipe.yaml'} is empty or cut; copy it anew, or start a new run")
        if "base" in values:
            raise ValueError(f"{self.path / 'recipe.yaml'} builds on another file, and a run's recipe stands alone")
        recipe = read(self.path / "recipe.yaml")
        if "drop_last" not in recipe.data.model_fields_set:  # the run began before there was this setting
            recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"drop_last": False})})
        if "layer_decay" not in recipe.optim.model_fields_set:  # as above
            recipe = recipe.model_copy(update={"optim": recipe.optim.model_copy(update={"layer_decay": 1.0})})
        if not trust and not self.is_own:
            refuse_code(self.path, list_code(recipe))
            refuse_unpacking(self.path, recipe.data, recipe.method.teacher)
            recipe = ignore_reaching(recipe)
        words = list(words)
        return change(recipe, words) if words else recipe

    def hash_recipe(self) -> str:
        """SHA-256 of recipe.yaml, in hexadecimal."""
        return hash_bytes((self.path / "recipe.yaml").read_bytes())

    def is_recipe_edited(self) -> bool:
        """Whether recipe.yaml is another than when the run began; False where that was not recorded."""
        environment = self.environment()
        return environment is not None and environment.recipe not in (None, self.hash_recipe())

    def write_environment(self, environment: Environment) -> None:
        """Writes environment.json; that of a resumed run is appended to `resumed` of the first."""
        first = self.environment()
        if first is not None:
            environment = first.model_copy(update={"resumed": [*first.resumed, environment]})
        write_json(self.path / "environment.json", environment.model_dump())

    def environment(self) -> Environment | None:
        """environment.json; None where it was never written. Raises `ValueError` for a damaged one."""
        path = self.path / "environment.json"
        if not path.is_file():
            return None
        try:
            return Environment.model_validate(read_json(path))
        except ValidationError as error:
            raise ValueError(f"{path} is damaged: {describe_problem(error)}; delete it, and it is begun anew") from None
        except ValueError as error:
            raise ValueError(f"{error}; delete it, and it is begun anew") from None

    def log(self, line: str) -> None:
        """Appends a line to train.log, with its time in UTC."""
        with append_to(self.path / "train.log") as file:
            file.write(f"{now()} {escape_controls(line)}\n".encode())

    def append(self, record: Record) -> None:
        """Appends a record to metrics.jsonl."""
        with append_to(self.path / "metrics.jsonl") as file:
            cut_torn_line(file)
            file.write(to_line(record))

    def records(self) -> list[AnyRecord]:
        """All records of metrics.jsonl, oldest first. A last line that a kill cut short is left out."""
        path = self.path / "metrics.jsonl"
        lines = path.read_bytes().split(b"\n") if path.is_file() else []
        return [from_line(line, number, path) for number, line in enumerate(lines[:-1], start=1)]

    def outcomes(self, split: str) -> Outcomes | None:
        """What the student answered for each image of "val" or "test".

        None where nothing was written: for runs that have not ended, of older versions, or of a task of one's own.
        Raises `ValueError` that names a damaged file.
        """
        return read_outcomes(self._outcomes_path(split))

    def save_outcomes(self, split: str, outcomes: Outcomes) -> None:
        """Replaces the outcomes of a split."""
        save_outcomes(self._outcomes_path(split), outcomes)

    def _outcomes_path(self, split: str) -> Path:
        return self.path / f"outcomes-{split}.safetensors"

    def log_bytes(self) -> int:
        """The size of metrics.jsonl, to which `rewind` can go back."""
        path = self.path / "metrics.jsonl"
        return path.stat().st_size if path.is_file() else 0

    def rewind(self, step: int, *, size: int | None = None) -> str | None:
        """Drops the records that a run resumed after `step` writes again, and what is written at a run's end.

        `size` is what `log_bytes` gave at the checkpoint. Older checkpoints do not hold it; then the records of later
        steps are dropped. Gives a sentence about records that are lost, which a damaged log no longer has.
        """
        path, length = self.path / "metrics.jsonl", self.log_bytes()
        if size is not None:
            kept = path.read_bytes()[:size] if path.is_file() else b""
            kept = kept[: kept.rfind(b"\n") + 1]
        else:
            records = [record for record in self.records() if record.step <= step]
            kept = b"".join(to_line(record) for record in records if not isinstance(record, EndRecord))
        with replace_file(path) as temporary:
            temporary.write_bytes(kept)
        for outcomes in self.path.glob("outcomes-*.safetensors"):
            outcomes.unlink()
        if size is None or length >= size:
            return None
        return f"{path} was cut or edited: it had {length} bytes instead of {size}, and what is missing is lost"

    def save_checkpoint(self, state: Mapping[str, Any], *, reduced: Mapping[str, Any] | None = None) -> None:
        """Replaces last.pt, which becomes last.1.pt. If `reduced` is given, last.1.pt becomes that instead.

        `reduced` is the same state without what is too large to be kept twice; it names that in `left_out`. Raises
        `ValueError` for a state that needs code execution to be read.
        """
        path, metrics = self.path / LAST, self.path / "metrics.jsonl"
        if metrics.is_file():
            sync(metrics, os.O_RDWR)  # a checkpoint must not outlive the records of the steps before it
        keeps_last = reduced is None and not self._last_is_damaged
        _write_checkpoint(path, state, keep=self.path / BEFORE_LAST if keeps_last else None)
        self._last_is_damaged = False
        if reduced is not None:
            _write_checkpoint(self.path / BEFORE_LAST, reduced)

    def open_best(self) -> "Run":
        """The folder of the best student, which is a run folder without logs and checkpoints; made if missing."""
        best = Run(make_folders(self.path, BEST))
        recipe = (self.path / "recipe.yaml").read_text(encoding="utf-8")
        if not (best.path / "recipe.yaml").exists():
            write_text(best.path / "recipe.yaml", recipe)
        return best

    def forget_checkpoint_before_last(self) -> None:
        """Removes last.1.pt, for a run that has nothing to go on with."""
        (self.path / BEFORE_LAST).unlink(missing_ok=True)

    @property
    def has_checkpoint(self) -> bool:
        return any((self.path / name).exists() for name in (LAST, BEFORE_LAST))

    def load_checkpoint(self, name: str = LAST) -> dict[str, Any]:
        """What `save_checkpoint` was given, on the CPU; raises `ValueError` for a missing or damaged file."""
        path = self.path / name
        if not path.is_file():
            raise ValueError(f"{self.path} holds no {path.name}: it ended before its first checkpoint; start it anew")
        try:
            with zipfile.ZipFile(path) as archive:
                if member := archive.testzip():  # torch.load compares no checksum
                    raise zipfile.BadZipFile(f"checksum of {member}")
            if not (code := get_unsafe_globals_in_checkpoint(path)):
                state = torch.load(path, map_location="cpu", weights_only=True)
                if not isinstance(state, dict):
                    raise ValueError(f"it holds a {type(state).__name__}")
                return state
        except Exception as error:
            reason = flatten_message(error)[:120]
            raise DamagedCheckpoint(f"{path} is truncated or damaged ({reason})", "start the run anew") from error
        raise ValueError(f"{path} is refused: reading it would run code ({', '.join(code)}); start the run anew")

    def load_whole_checkpoint(self) -> tuple[dict[str, Any], str | None]:
        """The newest checkpoint that is whole, and a sentence about a damaged one that is newer.

        Raises `ValueError` if there is none.
        """
        has_before = (self.path / BEFORE_LAST).is_file()
        damage, is_missing = f"{self.path / LAST} is missing", has_before and not (self.path / LAST).is_file()
        if not is_missing:
            try:
                return self.load_checkpoint(), None
            except DamagedCheckpoint as error:
                if not has_before:
                    raise
                damage = error.damage
        state = self.load_checkpoint(BEFORE_LAST)
        self._last_is_damaged = not is_missing
        is_reduced = bool(state.get("left_out"))
        if is_missing and not is_reduced:  # a kill between two renames
            return state, None
        lost = "; what the method remembered of each image is lost, and begins anew" if is_reduced else ""
        return state, f"{damage}; the run goes on from {self.path / BEFORE_LAST}, after step {state.get('step')}{lost}"


class DamagedCheckpoint(ValueError):
    """A checkpoint that cannot be read."""

    def __init__(self, damage: str, advice: str) -> None:
        super().__init__(f"{damage}; {advice}")
        self.damage = damage


def _write_checkpoint(path: Path, state: Mapping[str, Any], *, keep: Path | None = None) -> None:
    with replace_file(path, keep=keep) as temporary:
        with CheckedFile(temporary) as file:
            torch.save(state, file)
        if code := get_unsafe_globals_in_checkpoint(temporary):
            raise ValueError(f"{path} could not be read again without running code ({code[0]}); keep plain values")


def _refuse_taken(folder: Path) -> None:
    """Raises `ValueError` for a folder that holds a run or other files."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; choose another `out=`")
    names = sorted(entry.name for entry in folder.iterdir()) if folder.exists() else []
    if "recipe.yaml" in names:
        raise FolderTaken(
            f"{folder} already holds a run; choose another `out=` or continue it with `--resume {folder}`"
        )
    others = [name for name in names if not name.startswith(".")]
    if others:
        raise ValueError(f"{folder} holds other files, {others[0]} for one; choose another `out=`")


def _suggest(path: Path) -> str:
    """The hint with the run folder beside `path` that has the most similar name, or nothing."""
    siblings = [entry.parent.name for entry in path.parent.glob("*/recipe.yaml")]
    return did_you_mean(path.name, siblings, f"{path.parent}{os.sep}", otherwise="")
