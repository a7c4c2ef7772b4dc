"""export: writes a run's student as one file for other programs."""

from pathlib import Path

from ..export import export
from ..runs.student import read_card
from .arguments import tell_other_run
from .console import say


def export_run(run: Path, format: str, *, out: Path | None, fixed_size: bool, trust: bool = False) -> None:
    """Writes the file, and prints how far its scores are from the student's."""
    exported = export(run, format, out=out, fixed_size=fixed_size, trust=trust)
    tell_other_run(run, read_card(run, trust=trust))
    say(f"{exported.path}: the scores differ from the student's by {exported.max_difference:.2g} at most")
