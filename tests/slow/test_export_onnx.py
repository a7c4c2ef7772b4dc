"""The ONNX file of a student: one file, any batch size, and it says what it is."""

import json
from pathlib import Path

import pytest
import torch

from selfdistill.export import export
from selfdistill.recipe import Recipe
from selfdistill.run import Run, load_student
from selfdistill.students import build_student

pytestmark = pytest.mark.slow
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("name", ["cifar:resnet8", "timm:vit_tiny_patch16_224"])
def test_onnx_is_one_file_for_any_batch_size(tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    student = {"name": name, "options": {}, "num_classes": 3, "image_shape": [3, 32, 32]}
    data = {"mean": [0.5, 0.25, 0.125], "std": [0.3, 0.2, 0.1]}
    about = {"classes": ["Möwe", "b", "c"], "student": student, "data": data, "method": "frskd"}
    run = Run.create(tmp_path / "run", Recipe())
    run.save_student(build_student(name, num_classes=3, image_shape=(3, 32, 32)).state_dict(), about)

    path, difference = export(run.path, "onnx")

    assert capfd.readouterr().out == ""
    assert [entry.name for entry in path.parent.iterdir()] == ["student.onnx"] and difference < 1e-4
    moved = path.rename(tmp_path / "alone.onnx")
    session = onnxruntime.InferenceSession(moved, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 3, 32, 32] and session.get_outputs()[0].shape == ["batch", 3]
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == ["Möwe", "b", "c"] and json.loads(facts["std"]) == data["std"]
    images = torch.randn(7, 3, 32, 32)
    logits = torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])
    torch.testing.assert_close(logits, load_student(run.path)(images), rtol=1e-4, atol=1e-4)
