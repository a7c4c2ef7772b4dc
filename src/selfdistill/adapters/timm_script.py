"""timm's training script, unedited, with a method of this package: `python -m selfdistill.adapters.timm`."""

import os
import runpy
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import timm.data
import timm.scheduler
import timm.task
import yaml
from torch import nn

from ..methods import find_method
from ..models import Adapted, build_student, describe_weights
from ..runs.student import load_student, read_card
from .timm import SelfDistillTask, refuse_other_needs

USAGE = "METHOD [name=value ...] -- SCRIPT [ARGS]"
OTHER_TASKS = (
    "MultiLabelClassificationTask",
    "LogitDistillationTask",
    "FeatureDistillationTask",
    "TokenDistillationTask",
)


class Request(NamedTuple):
    """What the command line asks for."""

    method: str
    settings: dict[str, Any]  # hyper-parameters
    teacher: str | None
    script: str
    arguments: list[str]


class Noticed:
    """What the script tells timm, and the task needs to know."""

    def __init__(self) -> None:
        self.data_config: dict[str, Any] = {}  # input_size, mean and std of the images
        self.task: SelfDistillTask | None = None


def main(words: Sequence[str] | None = None) -> None:
    """Runs the script. Ends in a sentence where the command line, or a method for this model, is wrong."""
    try:
        request = read_words(sys.argv[1:] if words is None else words)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    noticed = Noticed()
    watch_timm(request, noticed)
    sys.argv = [request.script, *request.arguments]
    sys.path.insert(0, os.path.dirname(os.path.abspath(request.script)))
    runpy.run_path(request.script, run_name="__main__")
    if noticed.task is None:
        raise SystemExit(
            f"error: {request.script} made no timm.task.ClassificationTask, so {request.method} trained nothing; take "
            f"the train.py that belongs to timm {timm.__version__}"
        )


def read_words(words: Sequence[str]) -> Request:
    """The words of the command line; raises `ValueError` where they do not say what to train."""
    words = [*words]
    cut = words.index("--") if "--" in words else len(words)
    own, others = words[:cut], words[cut + 1 :]
    if not own or not others:
        raise ValueError(f"write {USAGE}, such as frskd ramp=1 -- train.py --data-dir IMAGES --model resnet18")
    method, *pairs = own
    settings: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ValueError(f"{pair!r} is no setting of {method}; write name=value, and the script behind --")
        settings[name] = text if name == "teacher" else yaml.safe_load(text)
    teacher = settings.pop("teacher", None)
    refuse_other_needs(method)
    if find_method(method).teacher_method:
        raise ValueError(f"{method} learns from a whole method, not from a network; train it with `selfdistill train`")
    if not os.path.isfile(others[0]):
        raise ValueError(f"{others[0]} is no file; give the path of timm's train.py")
    return Request(method, settings, teacher, others[0], others[1:])


def watch_timm(request: Request, noticed: Noticed) -> None:
    """Has timm's functions tell what they are given, and its classification task be one of the method.

    A script finds them when it imports them, so this comes before. timm hands a task neither the size of the images nor
    the number of updates.
    """
    resolve, create = timm.data.resolve_data_config, timm.scheduler.create_scheduler_v2

    def resolve_data_config(*args: Any, **settings: Any) -> dict[str, Any]:
        noticed.data_config = resolve(*args, **settings)
        return noticed.data_config

    def create_scheduler_v2(*args: Any, **settings: Any) -> tuple[Any, int]:
        scheduler, epochs = create(*args, **settings)
        if noticed.task is not None and settings.get("updates_per_epoch"):
            noticed.task.total_updates = epochs * settings["updates_per_epoch"]
        return scheduler, epochs

    class ScriptTask(SelfDistillTask):
        def __init__(self, model: nn.Module, criterion: Any = None, **settings: Any) -> None:
            try:
                if noticed.data_config:
                    settings["image_shape"] = noticed.data_config["input_size"]
                settings |= {"method": request.method, **request.settings}
                teacher = request.teacher and open_teacher(request.teacher, model, noticed.data_config)
                super().__init__(model, criterion, teacher=teacher, **settings)
            except ValueError as error:
                raise SystemExit(f"error: {error}") from None
            noticed.task = self

    timm.data.resolve_data_config = resolve_data_config
    timm.scheduler.create_scheduler_v2 = create_scheduler_v2
    timm.task.ClassificationTask = ScriptTask
    for name in OTHER_TASKS:
        setattr(timm.task, name, refuse_task(name, request.method))


def refuse_task(name: str, method: str) -> Callable[..., Any]:
    """A stand-in for a task of timm that would leave the method out."""

    def refuse(*args: Any, **settings: Any) -> None:
        raise SystemExit(
            f"error: the script's arguments ask for timm's {name}, and {method} replaces its ClassificationTask; "
            "leave out --task multilabel and --kd arguments"
        )

    return refuse


def open_teacher(name: str, model: nn.Module, data_config: dict[str, Any]) -> nn.Module:
    """The network of a run folder, or `timm:NAME` with its published weights, on the model's device.

    It is shown the images as it knows them. Raises `ValueError` where there is none.
    """
    parameter = next(model.parameters())
    if os.path.isdir(name):
        card = read_card(name)
        net, own_mean, own_std = load_student(name), card.data.mean, card.data.std
    else:
        public = describe_weights(name)
        if public is None or not public.classes:
            raise ValueError(f"teacher={name} is neither a run folder nor a network with published weights, timm:NAME")
        shape = tuple(data_config.get("input_size") or model.pretrained_cfg["input_size"])
        net = build_student(name, num_classes=len(public.classes), image_shape=shape, pretrained=True)
        own_mean, own_std = public.mean, public.std
    known = data_config or model.pretrained_cfg
    mean, std = known["mean"], known["std"]
    if own_mean is not None and own_std is not None and ([*own_mean], [*own_std]) != ([*mean], [*std]):
        net = Adapted(net, mean=mean, std=std, own_mean=own_mean, own_std=own_std)
    return net.to(parameter.device)
