"""Methods in the trainers of other libraries: timm, transformers and Lightning. Nothing else imports these files."""

import re
from importlib.metadata import PackageNotFoundError, version


def require(library: str, oldest: str, install: str) -> None:
    """Raises `ImportError`, in a sentence with what to install, for a library that is missing or too old.

    >>> require("torch", "99.0", "'torch>=99.0'")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ImportError: this needs torch 99.0 or newer, and ... is installed; pip install 'torch>=99.0'
    """
    try:
        installed = version(library)
    except PackageNotFoundError:
        raise ImportError(f"this needs {library}, which is not installed; pip install {install}") from None
    if _read_release(installed) < _read_release(oldest):
        raise ImportError(
            f"this needs {library} {oldest} or newer, and {installed} is installed; pip install {install}"
        )


def _read_release(text: str) -> list[int]:
    """The numbers of a version before what follows the release, such as rc1 or +cpu."""
    return [int(number) for number in re.match(r"[\d.]*", text)[0].strip(".").split(".")]  # type: ignore[index]
