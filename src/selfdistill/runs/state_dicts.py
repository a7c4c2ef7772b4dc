"""Files of weights that other programs wrote: safetensors, and torch's own, of which nothing is executed."""

import argparse
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import one_line

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
IN_FOLDERS = ("model.safetensors", "pytorch_model.bin")  # as transformers and timm save a network in a folder
MOST_NESTED = 3


def find_weights_file(name: str | Path) -> Path | None:
    """The file of weights that a setting names, itself or inside of a folder that is no run; None for anything else.

    Raises `ValueError` for the name of a file that does not exist.
    """
    path = Path(name).expanduser()
    if path.is_dir() and not (path / "recipe.yaml").exists():
        path = next((path / file for file in IN_FOLDERS if (path / file).is_file()), path)
    if path.is_file():
        return path
    if path.suffix in SUFFIXES and not path.exists():
        raise ValueError(f"there is no file of weights {path}; give its path, or a run folder")
    return None


def read_state_dicts(path: Path) -> dict[str, dict[str, Tensor]]:
    """Every mapping of names to tensors in a file, by the dotted keys that it is nested under ("" at the top).

    Raises `ValueError` for a damaged file, for one without tensors, and for one that could be read by executing code
    alone.
    """
    stored = {"": _read_safetensors(path)} if path.suffix == ".safetensors" else dict(_find_tensors(_unpickle(path)))
    if not any(stored.values()):
        raise ValueError(f"{path} holds no tensors by name; save a network's state_dict()")
    return stored


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or damaged ({error}); copy it anew") from None


def _unpickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # plain values: the options of a training script
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        if code is None and "weights_only" not in str(error).lower():
            raise ValueError(f"{path} is truncated or damaged ({one_line(error)[:120]}); copy it anew") from None
        which = f" ({code[1]})" if code else ""
        raise ValueError(
            f"{path} is refused: reading it would run code{which}; where it comes from, save the network's "
            "state_dict() alone, best as safetensors"
        ) from None
    except Exception as error:  # whatever a damaged archive raises
        raise ValueError(
            f"{path} cannot be read as weights ({one_line(error)[:120]}); give a safetensors file, or what torch.save "
            "wrote of a state_dict()"
        ) from None


def _find_tensors(value: Any, label: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    if not isinstance(value, Mapping):
        return
    tensors = {name: item for name, item in value.items() if isinstance(name, str) and isinstance(item, Tensor)}
    if tensors:
        yield label, tensors
    for name, item in value.items():
        if isinstance(name, str) and depth < MOST_NESTED:
            yield from _find_tensors(item, f"{label}.{name}" if label else name, depth + 1)
