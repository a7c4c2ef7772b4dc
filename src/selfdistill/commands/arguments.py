"""What a user types behind a command: a recipe, and NAME=VALUE settings over it."""

from collections.abc import Sequence
from pathlib import Path

from ..config.names import hides_shipped
from ..config.part import Part, list_settings
from ..config.recipe import Recipe
from ..runs.folder import BEST, Run
from ..runs.student import StudentCard, describe_other_run
from .console import tell


def tell_ignored(folder: Path, stored: Part, used: Part) -> None:
    """Says which settings of a run folder from somebody else are not used."""
    other = used.flatten()
    for name, value in stored.flatten().items():
        if value != other.get(name):
            tell(f"note: {name}={value} of {folder} is ignored, as this machine did not sign it; --trust takes it")


def tell_other_run(run: Path, card: StudentCard) -> None:
    """Says where the student in a run folder seems to be of another run."""
    if sentence := describe_other_run(run, card):
        advice = "" if run.name == BEST else f", or delete student.json and say --resume {run}"
        tell(f"note: {sentence}; copy the folder anew{advice}")


def choose_student(run: Path, checkpoint: str) -> Path:
    """The folder of a run's last or best student; raises `ValueError` where it has none that is best."""
    if checkpoint not in ("last", "best"):
        raise ValueError(f"--checkpoint={checkpoint} is neither last nor best")
    if checkpoint == "last":
        return run
    folder = Run.open(run).path / BEST
    if (run / "best.pt").exists() and not folder.exists():
        raise ValueError(f"{run} was trained by version 0.1, which kept no best student to read; train it anew for one")
    if not (folder / "student.json").exists():
        raise ValueError(f"{run} holds no best student: a run chooses one by its validation images, so set data.val")
    return folder


def split_words(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The recipe, if the first word is one, and the settings."""
    if not words or "=" in words[0] or words[0] in list_settings(Recipe):
        return None, [*words]
    if hides_shipped(words[0]):
        tell(f"note: {words[0]} is the file here, not the recipe that comes with the package")
    return words[0], [*words[1:]]


def take_setting(words: list[str], name: str, default: str) -> str:
    """Removes every `name=value` from `words`, and gives the last one's value."""
    values = [word.partition("=")[2] for word in words if word.startswith(f"{name}=")]
    words[:] = [word for word in words if not word.startswith(f"{name}=")]
    return values[-1] if values else default


def parse_seeds(text: str) -> list[int]:
    """Seeds from their number, or from a list, which one seed is with brackets or a comma behind it.

    >>> parse_seeds("3"), parse_seeds("0,7"), parse_seeds("[7]"), parse_seeds("0,")
    ([0, 1, 2], [0, 7], [7], [0])
    """
    words = text.strip().removeprefix("[").removesuffix("]").removesuffix(",").split(",")
    for word in words:
        if not word.strip().isdecimal() or int(word) >= 2**31:
            raise ValueError(
                f"seeds={word!r} is not a whole number below 2**31; seeds=3 takes 0, 1 and 2, seeds=[7] takes seed 7"
            )
    return [*range(int(text))] if text.strip().isdecimal() else [int(word) for word in words]
