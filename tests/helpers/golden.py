"""Stored numbers, and how closely they must be met."""

from pathlib import Path

import numpy as np
import torch

GOLDEN = Path(__file__).parents[1] / "golden"


def read(name):
    with np.load(GOLDEN / f"{name}.npz") as archive:
        return {key: torch.from_numpy(np.array(archive[key])).to(torch.get_default_device()) for key in archive.files}


def under(values, prefix):
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}


def close(ours, authors):
    torch.testing.assert_close(ours, authors, rtol=1e-9, atol=1e-12)
