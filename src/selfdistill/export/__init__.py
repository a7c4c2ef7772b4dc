"""The student of a run as one file for other programs, compared with the network after writing."""

import io
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.fx.experimental import _config as tracing

from .. import __version__
from ..errors import did_you_mean, one_line
from ..runs.files import make_folders, replace_file
from ..runs.student import RANGES, StudentCard, build_network, load_student, read_card
from ..runs.weights import load_weights, save_weights
from ..tasks import find_task
from ..tasks.base import FIXED_SIZE, FreeAxes, ImageShape

FORMATS = {"safetensors": ".safetensors", "onnx": ".onnx", "torch-export": ".pt2"}  # format -> suffix
TOLERANCE = 1e-4  # for logits, relative to 1 + the largest
ONNX_LIMIT = 2**31 - 2**24  # bytes of weights: an ONNX file holds 2 GiB, and the graph needs some of them
Network = Callable[[Tensor], Tensor]


class Exported(NamedTuple):
    """A written file, and the largest difference between its logits and the network's."""

    path: Path
    max_difference: float


def export(
    run: str | Path, format: str, *, out: str | Path | None = None, fixed_size: bool = False, trust: bool = False
) -> Exported:
    """Writes the student of a run folder as one file; `format` is safetensors, onnx or torch-export.

    The file takes any batch size. A segmenter's file also takes images of any height and width, unless `fixed_size`.
    Its metadata holds student, classes, image size and normalization as text. The file appears at `out`, or at
    RUN/export/student.SUFFIX, after a check: it is read back and must give the network's logits on random images of
    several shapes, to 1e-4 of 1 + the largest. Otherwise raises `ValueError` and writes no file.
    `trust`: whether to run the code that a folder from somebody else names.
    """
    write = _choose_writer(format)
    card = read_card(run, trust=trust)
    free = _choose_free_axes(card, format, fixed_size)
    path = _choose_path(out if out is not None else Path(run) / "export" / f"student{FORMATS[format]}", format)
    network, name = load_student(run, trust=trust), card.student.name
    _refuse_large(network, name, format)
    channels, *size = card.student.image_shape
    advice = f"; --fixed-size exports it for images of {size[0]}x{size[1]} alone" if free is not FIXED_SIZE else ""
    description = f"{format} for images of any size" if advice else format
    if out is None:
        make_folders(Path(run), path.parent.name)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
    with replace_file(path) as temporary:
        try:
            exported = write(network, card, temporary, axes=free.names)
            difference, allowed = _measure_difference(network, exported, channels, free.tried_shapes(*size))
        except (OSError, MemoryError):
            raise
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise ValueError(f"{name} cannot be exported as {description}: {reason}{advice}") from error
        if not difference <= allowed:
            raise ValueError(
                f"{name} as {description} gives other logits than the network, by up to {difference:.2g} where "
                f"{allowed:.2g} is allowed; {path} was not written{advice}"
            )
    return Exported(path, difference)


def _choose_free_axes(card: StudentCard, format: str, fixed_size: bool) -> FreeAxes:
    """The axes that a file of this format leaves open. Raises `ValueError` if `fixed_size` has no effect."""
    traced = format != "safetensors"  # safetensors holds only weights
    free = find_task(card.task).free_axes if traced else FIXED_SIZE
    if fixed_size and free is FIXED_SIZE:
        subject = f"task={card.task}" if traced else f"the format {format}"
        raise ValueError(
            f"--fixed-size has no effect on {subject}; it binds a segmenter's onnx or torch-export to a size"
        )
    return FIXED_SIZE if fixed_size else free


def _choose_writer(format: str) -> Callable[..., Network]:
    """The function that writes `format`, and returns the network that it reads back from the file."""
    writers = {"safetensors": _write_safetensors, "onnx": _write_onnx, "torch-export": _write_torch_export}
    if format not in writers:
        raise ValueError(f"no export format is called {format!r}{did_you_mean(format, writers)}")
    missing = [package for package in ("onnx", "onnxscript", "onnxruntime") if find_spec(package) is None]
    if format == "onnx" and missing:
        raise ValueError(f'the format onnx needs {", ".join(missing)}: pip install "selfdistill[onnx]"')
    return writers[format]


def _choose_path(out: str | Path, format: str) -> Path:
    path = Path(out) / f"student{FORMATS[format]}" if Path(out).is_dir() else Path(out)
    if path.suffix != FORMATS[format]:
        raise ValueError(f"out={out} must end in {FORMATS[format]} for the format {format}, or be a folder")
    if path.name == "student.safetensors" and (path.parent / "student.json").is_file():
        raise ValueError(f"{path} is the student of a run itself, which an export would replace; choose another out")
    return path


def _refuse_large(network: nn.Module, name: str, format: str) -> None:
    size = sum(value.nbytes for value in network.state_dict().values())
    if format == "onnx" and size > ONNX_LIMIT:
        raise ValueError(
            f"{name} cannot be exported as onnx: its weights take {size / 2**30:.1f} GiB and one ONNX file holds 2; "
            "use torch-export"
        )


def _write_safetensors(network: nn.Module, card: StudentCard, path: Path, *, axes: dict[int, str]) -> Network:
    save_weights(path, network.state_dict(), collect_metadata(card))
    exported = build_network(card)
    load_weights(exported, path, card.student.name)
    return exported.eval()


def _write_onnx(network: nn.Module, card: StudentCard, path: Path, *, axes: dict[int, str]) -> Network:
    with _trace_quietly(axes):
        program = torch.onnx.export(
            network,
            (_create_example(card),),
            dynamo=True,
            dynamic_shapes=(axes,),
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
        assert program is not None
        graph = program.model.graph
        for axis in axes:  # after padding and cropping, the exporter writes a formula instead of the size
            graph.outputs[0].shape[axis] = graph.inputs[0].shape[axis]
        program.model.metadata_props.update(collect_metadata(card))
        program.save(path, external_data=False)
    return _read_onnx(path)


def _read_onnx(path: Path) -> Network:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal only: errors are raised anyway
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def _write_torch_export(network: nn.Module, card: StudentCard, path: Path, *, axes: dict[int, str]) -> Network:
    free = dict.fromkeys(
        axes, torch.export.Dim.DYNAMIC
    )  # named dimensions must be proven equal, which fails for formulas
    asserts = {"prefer_deferred_runtime_asserts_over_guards": True} if _sizes_are_free(axes) else {}
    with _trace_quietly(axes):
        program = torch.export.export(network, (_create_example(card),), dynamic_shapes=(free,), **asserts)
        torch.export.save(program, path, extra_files=collect_metadata(card))
        return torch.export.load(path).module()


def collect_metadata(card: StudentCard) -> dict[str, str]:
    """Collects what a program needs besides the weights, as text. Everything except names is JSON.

    Logits stay as they are; `temperature`, if there is one, is what to divide them by for calibrated probabilities.
    """
    return {
        "selfdistill": __version__,
        "student": card.student.name,
        "method": card.method,
        "classes": json.dumps(card.classes, ensure_ascii=False),
        "image_shape": json.dumps(card.student.image_shape),
        "mean": json.dumps(card.data.mean),
        "std": json.dumps(card.data.std),
        "input": describe_input(card),
        **({} if card.temperature is None else {"temperature": json.dumps(card.temperature)}),
        **{name: json.dumps(getattr(card.data, name)) for name in RANGES if getattr(card.data, name) is not None},
        **find_task(card.task).export_metadata(card),
    }


def describe_input(card: StudentCard) -> str:
    """What the exported network takes, in words.

    >>> from selfdistill.runs.student import NetworkCard
    >>> network = NetworkCard(name="cifar:resnet8", num_classes=2, image_shape=(1, 8, 8))
    >>> card = StudentCard(task="classification", classes=("a", "b"), student=network, data={}, method="frskd")
    >>> describe_input(card)
    'float32 (b, 1, h, w): values / 255, then (x - mean) / std for each channel'
    """
    data = card.data
    scaled = "values / 255"
    if data.value_range is not None or data.gray_range is not None:
        name = "gray_range" if data.value_range is None else "value_range"
        scaled = f"(values - low) / (high - low) by {name} = [low, high], cut off at 0 and 1"
    return f"float32 (b, {card.student.image_shape[0]}, h, w): {scaled}, then (x - mean) / std for each channel"


def _create_example(card: StudentCard) -> Tensor:
    """Creates images for tracing the network. Two, because a single one would fix the batch size."""
    return torch.zeros(2, *card.student.image_shape)


def _measure_difference(
    network: nn.Module, exported: Network, channels: int, shapes: Sequence[ImageShape]
) -> tuple[float, float]:
    """Measures the largest difference of the two networks' logits on images of these shapes; also the allowed one."""
    random = torch.Generator().manual_seed(0)
    differences, sizes = [], []
    with torch.no_grad():
        for count, *size in shapes:
            images = torch.randn(count, channels, *size, generator=random, device="cpu")
            try:
                logits, exported_logits = network(images), exported(images)
            except Exception as error:
                raise ValueError(f"on images of {size[0]}x{size[1]} it raises {one_line(error)}") from error
            if logits.shape != exported_logits.shape:
                raise ValueError(
                    f"its logits have shape {tuple(exported_logits.shape)} instead of {tuple(logits.shape)}"
                )
            differences.append((logits - exported_logits).abs().max())
            sizes.append(logits.abs().max())
    largest, size = torch.stack(differences).max(), torch.stack(sizes).max()  # NaN if any is NaN, unlike Python's max
    return largest.item(), TOLERANCE * (1 + size.item())


def _sizes_are_free(axes: dict[int, str]) -> bool:
    return axes.keys() > FIXED_SIZE.names.keys()


@contextmanager
def _trace_quietly(axes: dict[int, str]) -> Iterator[None]:
    """Silences tracing, and keeps it from tying free sizes to the size of the example.

    Without `backed_size_oblivious`, the file would depend on whether the example was padded to the stride. With it, a
    few networks fix the batch size, so it is off if the sizes are fixed.
    """
    oblivious = tracing.patch(backed_size_oblivious=True) if _sizes_are_free(axes) else nullcontext()
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), oblivious:
        warnings.simplefilter("ignore")
        yield
