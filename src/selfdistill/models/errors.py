"""Why a student cannot be built, in one sentence that names the nearest legal choice."""

import inspect
import re
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import did_you_mean, find_user_line, one_line
from ..features.modes import advise_gradients, set_mode

HTTP_LIBRARIES = ("httpx", "requests", "urllib3")


def option_error(student: str, option: str, legal: Iterable[str]) -> ValueError:
    """The error for an option that the network's constructor does not take."""
    legal = list(legal)
    return ValueError(f"{student} has no option {option!r}{did_you_mean(option, legal) if legal else '; it has none'}")


def refuse_unknown(student: str, options: Iterable[str], legal: Iterable[str]) -> None:
    """Raises `ValueError` for an option that is not among the `legal` ones."""
    legal = list(legal)
    for option in options:
        if option not in legal:
            raise option_error(student, option, legal)


def refuse_fixed(student: str, options: Iterable[str], reasons: Mapping[str, str]) -> None:
    """Raises `ValueError` for an option that the user cannot set, with the reason."""
    for option in options:
        if option in reasons:
            raise ValueError(f"{student}: {option} {reasons[option]}")


def list_options(constructor: Callable[..., Any], fixed: Container[str]) -> list[str]:
    """The parameters that have a default and are not `fixed`."""
    parameters = inspect.signature(constructor).parameters.values()
    return [p.name for p in parameters if p.default is not p.empty and p.name not in fixed]


def find_blamed_option(error: Exception, options: Mapping[str, Any]) -> str | None:
    """The option that made a constructor raise a `TypeError`, as far as its message tells.

    >>> find_blamed_option(TypeError("Net.__init__() got an unexpected keyword argument 'widht'"), {"widht": 2})
    'widht'
    """
    if not isinstance(error, TypeError):
        return None
    match = re.search(r"(?:unexpected|multiple values for) (?:keyword )?argument\W*(?:s\W+)?(\w+)", str(error))
    return match[1] if match and match[1] in options else None


def build_error(
    student: str,
    error: Exception,
    options: Mapping[str, Any],
    *,
    legal: Callable[[], Iterable[str]] = tuple,
    pretrained: bool = False,
    purpose: str = "",
) -> ValueError:
    """The error for a constructor that raised `error`: an option's fault, missing weights, or whatever it says.

    `legal` lists the options, `purpose` goes behind "cannot be built".
    """
    if blamed := find_blamed_option(error, options):
        return option_error(student, blamed, legal())
    if pretrained:
        return fetch_error(student, error)
    with_options = f" with {dict(options)}" if options else ""
    return ValueError(f"{student} cannot be built{purpose}{with_options} ({one_line(error)})")


def fetch_error(student: str, error: Exception) -> ValueError:
    """The error for pretrained weights that did not arrive, or arrived and did not fit."""
    if isinstance(error, OSError) or type(error).__module__.split(".")[0] in HTTP_LIBRARIES:
        return ValueError(
            f"the pretrained weights of {student} could not be fetched ({one_line(error)});"
            " go online once, so that they are cached, or set pretrained=false"
        )
    return ValueError(f"{student} could not be built with its pretrained weights ({one_line(error)})")


class Misfit(NamedTuple):
    """Why a network cannot score images, and the error that says so, if it raised one."""

    reason: str
    error: Exception | None = None


def find_misfit(
    network: nn.Module, *, num_classes: int, image_shape: tuple[int, int, int], output: str | None = "image"
) -> Misfit | None:
    """Why a network cannot score images of `image_shape`, None if it can: one blank image is tried in eval mode."""
    parameter = next((p for p in network.parameters() if p.is_floating_point()), torch.zeros(()))
    try:
        with set_mode(network, training=False), torch.no_grad():
            logits = network(parameter.new_zeros(1, *image_shape))
    except Exception as error:
        size = "x".join(map(str, image_shape))
        with set_mode(network, training=False):
            advice = advise_gradients(network, parameter.new_zeros(1, *image_shape))
        if advice or find_user_line(error):
            what = f"raised {one_line(error)}, given images of {size} in eval mode without gradients"
            return Misfit(f"{what}{advice}", error)
        return Misfit(f"cannot take images of {size} ({one_line(error)})", error)
    if not isinstance(logits, Tensor):
        return Misfit(f"must return a tensor of scores, not a {type(logits).__name__}")
    shapes = {"image": (1, num_classes), "pixel": (1, num_classes, *image_shape[1:])}
    expected = shapes.values() if output is None else [shapes[output]]
    if logits.shape in expected:
        return None
    other = {2: "image", 4: "pixel"}.get(logits.ndim, output)
    hint = f"; is it for a task that scores every {other}?" if output not in (None, other) else ""
    wanted = " or ".join(map(str, expected))
    return Misfit(f"must return scores of shape {wanted} for one image, not {tuple(logits.shape)}{hint}")
