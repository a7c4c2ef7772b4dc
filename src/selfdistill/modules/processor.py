"""What this machine's CPU can do, where that decides how something is computed."""

import functools

import torch


@functools.cache
def has_tiles() -> bool:
    """Whether this CPU multiplies tiles of bfloat16."""
    ask = getattr(torch.cpu, "get_capabilities", dict)  # older versions of torch cannot tell
    return bool(ask().get("amx_bf16", False))
