"""What this machine's CPU can do, where that decides how something is computed."""

import torch


def ask_for_tiles() -> bool:
    """Whether this CPU multiplies tiles of bfloat16; older versions of torch cannot tell."""
    return bool(getattr(torch.cpu, "get_capabilities", dict)().get("amx_bf16", False))


TILES = ask_for_tiles()  # at import, because torch.compile cannot trace the question


def has_tiles() -> bool:
    """What `ask_for_tiles` said."""
    return TILES
