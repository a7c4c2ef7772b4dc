"""The student of a run as one file for other programs, compared with the network after writing."""

import difflib
import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .run import build_plain, load_strictly, load_student, read_about, replacing, save_weights

FORMATS = {"safetensors": ".safetensors", "onnx": ".onnx", "torch-export": ".pt2"}  # and what their files end in
TOLERANCE = 1e-4  # of the logits, relative to 1 + the largest
ONNX_LIMIT = 2**31 - 2**24  # bytes of weights: an ONNX file holds 2 GiB, and the graph needs some of them
Network = Callable[[Tensor], Tensor]


class Exported(NamedTuple):
    """A written file, and the largest difference of its logits from the network's."""

    path: Path
    max_difference: float


def export(run: str | Path, format: str, *, out: str | Path | None = None) -> Exported:
    """Writes the student of a run folder as one file; `format` is safetensors, onnx or torch-export.

    It takes any batch size and carries student, classes, image size and normalisation as text. The file appears at
    `out`, or RUN/export/student.SUFFIX, after it was read back and gave the network's logits on random images, to 1e-4
    of 1 + the largest; `ValueError` and no new file otherwise.
    """
    write = _writer(format)
    about = read_about(run)
    path = _target(out if out is not None else Path(run) / "export" / f"student{FORMATS[format]}", format)
    network, name = load_student(run), about["student"]["name"]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        try:
            difference, allowed = _difference(network, write(network, about, temporary), about)
        except (OSError, MemoryError):
            raise
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise ValueError(f"{name} cannot be exported as {format}: {reason}") from error
        if not difference <= allowed:
            raise ValueError(
                f"{name} as {format} gives other logits than the network, by up to {difference:.2g} where "
                f"{allowed:.2g} is allowed; {path} was not written"
            )
    return Exported(path, difference)


def _writer(format: str) -> Callable[[nn.Module, dict[str, Any], Path], Network]:
    """What writes `format` and gives the network that it reads back from the file."""
    writers = {"safetensors": _safetensors, "onnx": _onnx, "torch-export": _torch_export}
    if format not in writers:
        near = difflib.get_close_matches(format, writers, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(writers)}"
        raise ValueError(f"no export format is called {format!r}; {hint}")
    missing = [package for package in ("onnx", "onnxscript", "onnxruntime") if find_spec(package) is None]
    if format == "onnx" and missing:
        raise ValueError(f'the format onnx needs {", ".join(missing)}: pip install "selfdistill[onnx]"')
    return writers[format]


def _target(out: str | Path, format: str) -> Path:
    path = Path(out) / f"student{FORMATS[format]}" if Path(out).is_dir() else Path(out)
    if path.suffix != FORMATS[format]:
        raise ValueError(f"out={out} must end in {FORMATS[format]} for the format {format}, or be a folder")
    return path


def _safetensors(network: nn.Module, about: dict[str, Any], path: Path) -> Network:
    save_weights(path, network.state_dict(), facts(about))
    again = build_plain(about)
    load_strictly(again, path, about["student"]["name"])
    return again.eval()


def _onnx(network: nn.Module, about: dict[str, Any], path: Path) -> Network:
    size = sum(value.nbytes for value in network.state_dict().values())
    if size > ONNX_LIMIT:
        raise ValueError(f"its weights take {size / 2**30:.1f} GiB and one ONNX file holds 2; use torch-export")
    images, batch = _example(about)
    with _silent():
        program = torch.onnx.export(
            network,
            (images,),
            dynamo=True,
            dynamic_shapes=({0: batch},),
            input_names=["images"],
            output_names=["logits"],
            verbose=False,
        )
        assert program is not None
        program.model.metadata_props.update(facts(about))
        program.save(path, external_data=False)
    return _read_onnx(path)


def _read_onnx(path: Path) -> Network:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])


def _torch_export(network: nn.Module, about: dict[str, Any], path: Path) -> Network:
    images, batch = _example(about)
    with _silent():
        program = torch.export.export(network, (images,), dynamic_shapes=({0: batch},))
        torch.export.save(program, path, extra_files=facts(about))
        return torch.export.load(path).module()


def facts(about: Mapping[str, Any]) -> dict[str, str]:
    """What a program needs beside the weights, as text; all but the names are JSON."""
    student, data = about["student"], about["data"]
    return {
        "selfdistill": version("selfdistill"),
        "student": student["name"],
        "method": about["method"],
        "classes": json.dumps(about["classes"], ensure_ascii=False),
        "image_shape": json.dumps(student["image_shape"]),
        "mean": json.dumps(data["mean"]),
        "std": json.dumps(data["std"]),
    }


def _example(about: Mapping[str, Any]) -> tuple[Tensor, Any]:
    """Images to trace the network with, and the name of their free dimension; one image would fix the batch size."""
    return torch.zeros(2, *about["student"]["image_shape"]), torch.export.Dim("batch", min=1)


def _difference(network: nn.Module, again: Network, about: Mapping[str, Any]) -> tuple[float, float]:
    """The largest difference of the two networks' logits, on one image and on three, and the allowed one."""
    random = torch.Generator().manual_seed(0)
    differences, sizes = [], []
    with torch.no_grad():
        for count in (1, 3):
            images = torch.randn(count, *about["student"]["image_shape"], generator=random)
            logits, others = network(images), again(images)
            if logits.shape != others.shape:
                raise ValueError(f"its logits have shape {tuple(others.shape)} instead of {tuple(logits.shape)}")
            differences.append((logits - others).abs().max())
            sizes.append(logits.abs().max())
    largest, size = torch.stack(differences).max(), torch.stack(sizes).max()  # nan where any is, unlike Python's max
    return largest.item(), TOLERANCE * (1 + size.item())


@contextmanager
def _silent() -> Iterator[None]:
    """Without the exporters' advice to people who write exporters."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
