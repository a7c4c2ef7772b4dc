"""Training steps on the meta device, whose tensors have no values: whatever needs one of them raises."""

import contextlib
import functools
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.batches import small_batch, small_task
from helpers.methods import small_method
from selfdistill.build import build
from selfdistill.config.read import parse
from selfdistill.config.recipe import OptimPart
from selfdistill.training import loop as train
from selfdistill.training.experiment import Experiment
from selfdistill.training.optim import create_ema

META = torch.device("meta")
OPTIM = {"clip": 1.0, "clip_value": 1.0, "accumulate": 2}
OPS = torch.ops.aten
COPIES = (OPS._to_copy.default, OPS.copy_.default, OPS.lift_fresh.default)
WAITING = (OPS._linalg_check_errors.default, OPS.multinomial.default)  # on GPUs; they look at values
PUTS = (OPS.index_put_.default, OPS.index_put.default)


def train_on_meta(monkeypatch):
    """Training goes to the meta device, for which there is no autocast."""
    create = train.create_accelerator

    def accelerator(recipe, **settings):
        made = create(recipe, **settings)
        made.state.device = META
        return made

    autocast = torch.autocast
    monkeypatch.setattr(train, "create_accelerator", accelerator)
    monkeypatch.setattr(
        torch, "autocast", lambda kind, **how: contextlib.nullcontext() if kind == "meta" else autocast(kind, **how)
    )


class NoWaiting(TorchDispatchMode):
    """Fails where a GPU would be waited for though the meta device lets it pass."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is OPS._sample_dirichlet.default and args[0].is_meta:  # it has no kernel there
            return torch.empty_like(args[0])
        made = func(*args, **kwargs)
        kinds = {each.device.type for each in (made, *args) if isinstance(each, torch.Tensor)}
        assert func not in COPIES or len(kinds) < 2 or kwargs.get("non_blocking"), f"{func} between {kinds}"
        assert func not in WAITING, f"{func} looks at values"
        assert func not in PUTS or not any(each is not None and each.dtype == torch.bool for each in args[1]), "a mask"
        return made


@functools.cache
def digits():
    """Training rows that are never read: a loop wants to know how many there are."""
    return build(parse({"data": {"source": "digits", "limit": 80}, "student": "cifar:resnet8"})).train_set


def training(method, **optim):
    machine = {"device": "cpu", "compile": False}
    recipe = parse({"epochs": 2, "batch_size": 16, "precision": "fp32", "machine": machine, "optim": optim})
    return train.Trainer(Experiment(recipe, method, digits()))


def steps(running, batch):
    """Two: the second finds what the first left behind."""
    with NoWaiting(), mock.patch("torch.tensor", on_the_host):
        for _ in range(2):
            running.train_step(iter([batch] * 2), [[8, 8]], [True, True])


def on_the_host(*data, device=None, tensor=torch.tensor, **how):
    """`torch.tensor`, whose copy to a device waits and is hidden from a dispatch mode."""
    assert device is None, "a copy from the host; torch.full makes a number on the device"
    return tensor(*data, **how)


def on_device(batch):
    return type(batch)(*(None if part is None else part.to(META) for part in batch))


def one_run(found, kind):
    """Two steps of a method on the meta device."""
    task = small_task(kind)
    method, batch = small_method(found, task), small_batch(found, task)
    ema = create_ema(method.student, OptimPart(ema=0.9)).to(META)
    running = training(method, **OPTIM)
    running.state.ema = ema
    steps(running, on_device(batch))
    assert running.state.step == 2 and running.state.meter.images == 32
    assert all(value.is_meta for value in running.state.meter.sums.values())
