"""Weights of a network as a safetensors file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def load_weights(network: nn.Module, path: Path, name: str) -> None:
    """Loads a safetensors file into `network`; `ValueError` unless all keys and shapes agree and no value is NaN."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

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
    broken = next((key for key, value in weights.items() if value.is_floating_point() and not is_finite(value)), None)
    if broken is not None:
        raise ValueError(f"{path} holds NaN or infinite values, in {broken} for one; train or export it anew")
    network.load_state_dict(weights, strict=True)


def is_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    return bool(values.isfinite().all())


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
