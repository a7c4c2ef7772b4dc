"""outcomes-SPLIT.safetensors: what the student of a finished run answered for each image of a split."""

from pathlib import Path

from ..errors import one_line
from ..metrics.outcomes import Outcomes, restore_outcomes
from .files import replace_file


def save_outcomes(path: Path, outcomes: Outcomes) -> None:
    """Replaces the file of a split with these outcomes."""
    from safetensors.torch import save

    columns = {name: value.contiguous() for name, value in outcomes._asdict().items() if value is not None}
    with replace_file(path) as temporary:
        temporary.write_bytes(save(columns, metadata={"format": "pt", "kind": type(outcomes).__name__}))


def read_outcomes(path: Path) -> Outcomes | None:
    """What `save_outcomes` was given; None where there is no file. Raises `ValueError` that names a damaged one."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            kind, names = (file.metadata() or {}).get("kind", "nothing"), [*file.keys()]
            return restore_outcomes(kind, {name: file.get_tensor(name) for name in names})
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({one_line(error)}); delete it, and the run has no outcomes") from None
