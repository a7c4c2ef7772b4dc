"""The folder for what later runs reuse."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """The folder SELFDISTILL_CACHE, else `selfdistill` in XDG_CACHE_HOME, else in ~/.cache.

    Raises `ValueError` where there is no home folder.
    """
    named = os.environ.get("SELFDISTILL_CACHE")
    folder = Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "selfdistill"
    try:
        return folder.expanduser()
    except RuntimeError:
        raise ValueError(f"there is no home folder for {folder}; name another folder in SELFDISTILL_CACHE") from None
