"""Why a student cannot be built, in one sentence that names the nearest legal choice."""

import inspect
import re
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import nearest, reason
from ..features.modes import set_mode


def refused_option(student: str, option: str, legal: Iterable[str]) -> ValueError:
    """The error for an option that the network's constructor does not take."""
    legal = list(legal)
    return ValueError(f"{student} has no option {option!r}{nearest(option, legal) if legal else '; it has none'}")


def refuse_unknown(student: str, options: Iterable[str], legal: Iterable[str]) -> None:
    """Raises `ValueError` for an option that is not among the `legal` ones."""
    legal = list(legal)
    for option in options:
        if option not in legal:
            raise refused_option(student, option, legal)


def refuse_settled(student: str, options: Iterable[str], reasons: Mapping[str, str]) -> None:
    """Raises `ValueError` for an option that is not the user's to set, with the reason."""
    for option in options:
        if option in reasons:
            raise ValueError(f"{student}: {option} {reasons[option]}")


def free_parameters(constructor: Callable[..., Any], settled: Container[str]) -> list[str]:
    """The parameters that have a default and that nobody has settled."""
    parameters = inspect.signature(constructor).parameters.values()
    return [each.name for each in parameters if each.default is not each.empty and each.name not in settled]


def blamed_option(error: TypeError, options: dict[str, Any]) -> str | None:
    """The option that made a constructor raise `error`, as far as its message tells.

    >>> blamed_option(TypeError("Net.__init__() got an unexpected keyword argument 'widht'"), {"widht": 2})
    'widht'
    """
    found = re.search(r"(?:unexpected|multiple values for) (?:keyword )?argument\W*(?:s\W+)?(\w+)", str(error))
    return found[1] if found and found[1] in options else None


def fetch_failure(student: str, error: Exception) -> ValueError:
    """The error for pretrained weights that did not arrive, or arrived and did not fit."""
    if isinstance(error, OSError) or type(error).__module__.split(".")[0] in ("httpx", "requests", "urllib3"):
        return ValueError(
            f"the pretrained weights of {student} could not be fetched ({reason(error)});"
            " go online once, so that they are cached, or set pretrained=false"
        )
    return ValueError(f"{student} could not be built with its pretrained weights ({reason(error)})")


def misfit(net: nn.Module, *, num_classes: int, image_shape: tuple[int, int, int], output: str = "image") -> str | None:
    """Why `net` cannot score images of `image_shape`, None if it can: one blank image is tried in eval mode."""
    parameter = next((each for each in net.parameters() if each.is_floating_point()), torch.zeros(()))
    try:
        with set_mode(net, training=False), torch.no_grad():
            logits = net(parameter.new_zeros(1, *image_shape))
    except Exception as error:
        return f"cannot take images of {'x'.join(map(str, image_shape))} ({reason(error)})"
    if not isinstance(logits, Tensor):
        return f"must return a tensor of scores, not a {type(logits).__name__}"
    expected = (1, num_classes, *(image_shape[1:] if output == "pixel" else ()))
    if logits.shape == expected:
        return None
    other = {2: "image", 4: "pixel"}.get(logits.ndim, output)
    hint = f"; is it for a task that scores every {other}?" if other != output else ""
    return f"must return scores of shape {expected} for one image, not {tuple(logits.shape)}{hint}"
