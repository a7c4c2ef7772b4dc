"""The ONNX file of a student: one file, any batch size, a segmenter's any image size, and it says what it is."""

import json
from pathlib import Path

import pytest
import torch

from selfdistill.config.recipe import Recipe
from selfdistill.export import export
from selfdistill.models import build_student
from selfdistill.runs.folder import Run
from selfdistill.runs.student import StudentCard, load_student, save_student
from selfdistill.tasks import find_task

pytestmark = pytest.mark.slow
DATA = {"mean": [0.5, 0.25, 0.125], "std": [0.3, 0.2, 0.1], "source": "/nowhere"}
onnxruntime = pytest.importorskip("onnxruntime")


def saved(folder: Path, name: str, task: str, shape: tuple[int, int, int]) -> Path:
    """A run folder with a student of three classes."""
    network = {"name": name, "options": {}, "num_classes": 3, "image_shape": list(shape)}
    card = {"task": task, "classes": ["Möwe", "b", "c"], "student": network, "data": DATA, "method": "frskd"}
    if task == "segmentation":
        card["masks"] = {"values": [0, 1, 2], "colours": [[255, 0, 0], [0, 255, 0], [0, 0, 255]]}
    run = Run.create(folder, Recipe())
    student = build_student(name, num_classes=3, image_shape=shape, output=find_task(task).output)
    save_student(run, student.state_dict(), StudentCard(**card))
    return run.path


@pytest.mark.parametrize("name", ["cifar:resnet8", "timm:vit_tiny_patch16_224"])
def test_onnx_is_one_file_for_any_batch_size(tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    run = saved(tmp_path / "run", name, "classification", (3, 32, 32))

    path, difference = export(run, "onnx")

    assert capfd.readouterr().out == ""
    assert [entry.name for entry in path.parent.iterdir()] == ["student.onnx"] and difference < 1e-4
    moved = path.rename(tmp_path / "alone.onnx")
    session = onnxruntime.InferenceSession(moved, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 3, 32, 32] and session.get_outputs()[0].shape == ["batch", 3]
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == ["Möwe", "b", "c"] and json.loads(facts["std"]) == DATA["std"]
    images = torch.randn(7, 3, 32, 32)
    logits = torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])
    torch.testing.assert_close(logits, load_student(run)(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("format", "name"),
    [("onnx", "smp:Unet/resnet18"), ("onnx", "efficientdet:d0"), ("torch-export", "smp:Unet/resnet18")],
)
def test_segmenters_are_exported_for_images_of_any_size(tmp_path: Path, name: str, format: str) -> None:
    run = saved(tmp_path / "run", name, "segmentation", (3, 64, 96))
    path, difference = export(run, format)
    images = torch.randn(2, 3, 77, 200)
    if format == "torch-export":
        logits = torch.export.load(path).module()(images)
    else:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (given,), (returned,) = session.get_inputs(), session.get_outputs()
        assert (given.name, given.shape) == ("images", ["batch", 3, "height", "width"])
        assert (returned.name, returned.shape) == ("logits", ["batch", 3, "height", "width"])
        logits = torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])
    expected = load_student(run)(images)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4 * (1 + expected.abs().max().item()))


def test_networks_that_pool_to_a_grid_have_onnx_files_of_one_size(tmp_path: Path) -> None:
    """As the UPerNet and PSPNet of smp do, whose export takes ten times as long."""
    run = saved(tmp_path / "run", "helpers.plain_students:grid_segmenter", "segmentation", (3, 64, 96))
    with pytest.raises(ValueError, match="as onnx for images of any size.*--fixed-size exports it for images of 64x96"):
        export(run, "onnx")
    path, _ = export(run, "onnx", fixed_size=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 3, 64, 96]
    assert export(run, "torch-export").max_difference < 1e-4
