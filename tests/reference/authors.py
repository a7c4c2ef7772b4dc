"""The names that the authors' FRSKD modules give to what ours names differently."""

import re

from torch import Tensor

BLOCK = r"\.conv\.(\d+)\.(\d+)\."  # repeat, place in the repeat


def self_teacher_state(authors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A self-teacher's state dict in the authors' names -> the same tensors under our names.

    `authors` maps names such as "layers.0.lat_conv.1.conv.0.0.weight", without any prefix of their own.
    """
    return {_renamed(name): value for name, value in authors.items()}


def _renamed(name: str) -> str:
    name = re.sub(r"^(fc|linear)\.", "fc.", name)
    name = re.sub(r"^layers\.(\d+)\.", r"passes.\1.", name)
    name = re.sub(r"\.up_weight\.(\d+)$", r".fuse_down.\1.weight", name)
    name = re.sub(r"\.down_weight\.(\d+)$", r".fuse_up.\1.weight", name)
    for theirs, ours in {
        r"\.lat_conv\.(\d+)": r".lateral_down.\1",
        r"\.lat_conv2\.(\d+)": r".lateral_up.\1",
        r"\.up_sample\.(\d+)\.1": r".point_down.\1",
        r"\.down_sample\.(\d+)\.1": r".point_up.\1",
    }.items():
        name = re.sub(theirs + r"\.conv\.0\.(\d+)\.", ours + r".\2.", name)
    for theirs, ours in {"up_conv": "node_down", "down_conv": "node_up"}.items():
        found = re.search(rf"\.{theirs}\.(\d+){BLOCK}", name)
        if found:
            node, repeat, place = map(int, found.groups())
            # Every repeat after the first begins with its ReLU in the authors' numbering, as in ours.
            ours_place = place if repeat == 0 else 3 + 4 * (repeat - 1) + place
            name = name.replace(found.group(), f".{ours}.{node}.{ours_place}.")
    return name
