"""Counts what one training step costs without a clock: operations, memory, rows, parameters."""

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
    memory: int  # bytes at the step's peak: weights, gradients, optimizer state, batch and all that the step allocates
    rows: float  # images that enter the student, per image of the batch
    student: int  # parameters
    training_only: int  # parameters beside the student's and a frozen teacher's


def count_costs(stepper: Stepper) -> Counts:
    """The costs of one step. Deterministic on CPUs; takes four steps, and must come before `stepper.compile`."""
    stepper.step()  # the first step creates the optimizer's state
    with count_images(stepper.module.student) as rows, create_flop_counter() as flops:
        stepper.step()
    module = stepper.module
    is_method = isinstance(module, Method)
    parameters = count_method_parameters(module) if is_method else {"student": count_parameters(module)}
    return Counts(
        flops.get_total_flops(),
        measure_peak_memory(stepper),
        rows() / stepper.setting.batch,
        parameters["student"],
        parameters.get("training_only", 0),
    )


def create_flop_counter() -> FlopCounterMode:
    return FlopCounterMode(
        display=False, custom_mapping={torch.ops.aten.convolution_backward: count_convolution_backward}
    )


def count_convolution_backward(grad: Any, images: Any, weight: Any, *args: Any, **kwargs: Any) -> int:
    """Operations of a convolution's gradients: each costs as much as the forward pass.

    torch's own formula counts a grouped convolution as a dense one.
    """
    transposed, output_mask = args[4], args[7]
    positions = (images if transposed else grad)[2:]
    return 2 * grad[0] * math.prod(positions) * math.prod(weight) * sum(output_mask[:2])


@contextmanager
def count_images(student: nn.Module) -> Iterator[Any]:
    """Counts the rows that enter the student's first layer; yields a function that returns their number."""
    rows: dict[nn.Module, int] = {}

    def count_rows(layer: nn.Module, args: tuple[Any, ...]) -> None:
        rows[layer] = rows.get(layer, 0) + (len(args[0]) if args and isinstance(args[0], Tensor) else 0)

    leaves = [module for module in student.modules() if next(module.children(), None) is None]
    handles = [leaf.register_forward_pre_hook(count_rows) for leaf in leaves]
    yield lambda: next(iter(rows.values()), 0)
    for handle in handles:
        handle.remove()


def measure_peak_memory(stepper: Stepper) -> int:
    """Bytes at the peak of one step, with those that live between steps; on a GPU as its allocator counts them."""
    stepper.wait()
    measure_peak = measure_peak_on_gpu if stepper.setting.device.type == "cuda" else measure_peak_on_cpu
    return count_resident_bytes(stepper) + measure_peak(stepper)


def measure_peak_on_gpu(stepper: Stepper) -> int:
    device = stepper.setting.device
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    stepper.step()
    stepper.wait()
    return torch.cuda.max_memory_allocated(device) - before


def measure_peak_on_cpu(stepper: Stepper) -> int:
    """Counts all of torch's allocations, also those inside its operations, but not oneDNN's own scratch memory."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it warns on every machine without a GPU
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        stepper.step()
    assert profile.profiler is not None and profile.profiler.kineto_results is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def count_resident_bytes(stepper: Stepper) -> int:
    """Bytes that live from step to step: weights, buffers, optimizer state, the batch."""
    states = stepper.optimizer.state.values()
    state = (value for parameter_state in states for value in parameter_state.values())
    module = stepper.module
    return count_bytes([*module.parameters(), *module.buffers(), *state, *stepper.batch])


def count_bytes(values: Iterable[Any]) -> int:
    storages = [value.untyped_storage() for value in values if isinstance(value, Tensor)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
