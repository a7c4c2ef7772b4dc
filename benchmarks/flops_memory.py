"""What one training step costs in numbers that no clock enters: operations, memory, rows, parameters."""

import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from harness import Stepper
from selfdistill import Method
from selfdistill.training.profile import count_method_parameters, count_parameters


class Counts(NamedTuple):
    flops: int  # of forward and backward, two for each multiply-add
    memory: int  # bytes at the step's peak: weights, gradients, optimiser state, batch and all that the step allocates
    rows: float  # that enter the student, for each image of the batch
    student: int  # parameters
    training_only: int  # parameters beside the student's and a frozen teacher's


def count_costs(stepper: Stepper) -> Counts:
    """The costs of one step. Deterministic on CPUs; takes four steps, and must come before `stepper.compile`."""
    stepper.step()  # the optimiser's state is made by the first
    with count_images(stepper.module.student) as rows, flop_counter() as flops:
        stepper.step()
    module = stepper.module
    own = count_method_parameters(module) if isinstance(module, Method) else {"student": count_parameters(module)}
    return Counts(
        flops.get_total_flops(),
        peak_memory(stepper),
        rows() / stepper.setting.batch,
        own["student"],
        own.get("training_only", 0),
    )


def flop_counter() -> FlopCounterMode:
    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: convolution_backward})


def convolution_backward(grad: Any, images: Any, weight: Any, *args: Any, **kwargs: Any) -> int:
    """Each gradient costs what the forward does; torch's own formula takes a grouped convolution for a dense one."""
    transposed, wanted = args[4], args[7]
    positions = (images if transposed else grad)[2:]
    return 2 * grad[0] * math.prod(positions) * math.prod(weight) * sum(wanted[:2])


@contextmanager
def count_images(student: nn.Module) -> Iterator[Any]:
    """Counts rows on their way into the student's first layer; what it yields gives their number."""
    rows: dict[nn.Module, int] = {}

    def enter(layer: nn.Module, args: tuple[Any, ...]) -> None:
        rows[layer] = rows.get(layer, 0) + (len(args[0]) if args and isinstance(args[0], Tensor) else 0)

    leaves = [each for each in student.modules() if next(each.children(), None) is None]
    handles = [leaf.register_forward_pre_hook(enter) for leaf in leaves]
    yield lambda: next(iter(rows.values()), 0)
    for handle in handles:
        handle.remove()


def peak_memory(stepper: Stepper) -> int:
    """Bytes at the peak of one step, those between steps included; a GPU's as its allocator counts them."""
    stepper.wait()
    return resident(stepper) + (peak_on_gpu(stepper) if stepper.setting.device.type == "cuda" else peak_on_cpu(stepper))


def peak_on_gpu(stepper: Stepper) -> int:
    device = stepper.setting.device
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    stepper.step()
    stepper.wait()
    return torch.cuda.max_memory_allocated(device) - before


def peak_on_cpu(stepper: Stepper) -> int:
    """Every allocation of torch's is seen, also those inside its operations; oneDNN's own scratch memory is not."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it tells of every machine without a GPU that it has none
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        stepper.step()
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    return most


def resident(stepper: Stepper) -> int:
    """Bytes that live from step to step: weights, buffers, optimiser state, the batch."""
    state = (value for each in stepper.optimizer.state.values() for value in each.values())
    module = stepper.module
    return storage_bytes([*module.parameters(), *module.buffers(), *state, *stepper.batch])


def storage_bytes(values: Iterable[Any]) -> int:
    storages = [value.untyped_storage() for value in values if isinstance(value, Tensor)]
    return sum({each.data_ptr(): each.nbytes() for each in storages}.values())
