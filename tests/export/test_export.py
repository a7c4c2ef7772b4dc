"""What is exported gives the network's logits for any batch size, and a segmenter's for any image size."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from selfdistill import export as export_module
from selfdistill.config.recipe import Recipe
from selfdistill.export import export
from selfdistill.runs.folder import Run
from selfdistill.runs.student import StudentCard, load_student, save_student

CLASSES = ["Möwe", "b, c", "d"]
STUDENT = {"name": "cifar:resnet8", "options": {}, "num_classes": 3, "image_shape": [3, 16, 16]}
DATA = {"image_size": [16, 16], "channels": 3, "mean": [0.5, 0.25, 0.125], "std": [0.3, 0.2, 0.1]}
CARD = {"task": "classification", "classes": CLASSES, "student": STUDENT, "data": DATA, "method": "frskd"}


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A run folder whose student has seen some images."""
    from selfdistill.models import build_student

    student = build_student("cifar:resnet8", num_classes=3, image_shape=(3, 16, 16)).train()
    student(torch.randn(8, 3, 16, 16) * 2 + 1)
    run = Run.create(tmp_path / "run", Recipe())
    save_student(run, student.state_dict(), StudentCard(**CARD))
    return run.path


class Filled(nn.Module):
    """Fills images up to a multiple of 4, as students do for their strides, and cuts the scores back."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, num_classes, 4, stride=4)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        scores = self.conv(nn.functional.pad(images, (0, -width % 4, 0, -height % 4)))
        return nn.functional.interpolate(scores, scale_factor=4, mode="bilinear")[..., :height, :width]


class Bound(nn.Module):
    """Has learned something for each place, and so takes images of 32x48 alone."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(num_classes, 32, 48))

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=1, keepdim=True) * self.places


def saved_segmenter(folder: Path, network: type[nn.Module]) -> Path:
    """A run folder with a segmenter of masks that store 0, 2 and 3."""
    student = {**STUDENT, "name": f"{__name__}:{network.__name__}", "image_shape": (3, 32, 48)}
    data = {**DATA, "source": "/nowhere", "classes": ["Möwe", "void", "b, c", "d"], "void": [1], "short_side": 40}
    masks = {"values": (0, 2, 3), "colours": ((255, 0, 0), (0, 255, 0), (0, 0, 255))}
    card = StudentCard(**{**CARD, "task": "segmentation", "student": student, "data": data, "masks": masks})
    save_student(Run.create(folder, Recipe()), network(3).state_dict(), card)
    return folder


def assert_meaning(facts: dict[str, str]) -> None:
    assert json.loads(facts["classes"]) == CLASSES
    assert json.loads(facts["image_shape"]) == [3, 16, 16]
    assert json.loads(facts["mean"]) == DATA["mean"] and json.loads(facts["std"]) == DATA["std"]
    assert facts["student"] == "cifar:resnet8"


def test_safetensors_load_strictly_into_an_untouched_network(trained: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file

    from selfdistill.models import build_student

    path, difference = export(trained, "safetensors")
    assert path == trained / "export" / "student.safetensors" and difference == 0
    network = build_student("cifar:resnet8", num_classes=3, image_shape=(3, 16, 16)).eval()
    network.load_state_dict(load_file(path), strict=True)
    images = torch.randn(2, 3, 16, 16)
    assert torch.equal(network(images), load_student(trained)(images))
    with safe_open(path, "pt") as file:
        assert_meaning(file.metadata())


@pytest.mark.slow
def test_torch_export_takes_any_batch_size(trained: Path, tmp_path: Path) -> None:
    path, difference = export(trained, "torch-export", out=tmp_path / "new" / "net.pt2")
    assert path == tmp_path / "new" / "net.pt2" and difference < 1e-5
    facts = dict.fromkeys(("classes", "image_shape", "mean", "std", "student"), "")
    network = torch.export.load(path, extra_files=facts).module()
    images = torch.randn(5, 3, 16, 16)
    torch.testing.assert_close(network(images), load_student(trained)(images))
    assert_meaning(facts)


@pytest.mark.slow
def test_a_segmenters_file_takes_images_of_any_size_and_says_what_its_classes_are(tmp_path: Path) -> None:
    run = saved_segmenter(tmp_path / "run", Filled)
    facts = dict.fromkeys(("classes", "mask_values", "colours", "short_side"), "")
    network = torch.export.load(export(run, "torch-export").path, extra_files=facts).module()
    for shape in ((1, 3, 32, 48), (2, 3, 93, 121), (1, 3, 64, 33), (5, 3, 4, 200)):
        images = torch.randn(shape)
        torch.testing.assert_close(network(images), load_student(run)(images))
    assert (json.loads(facts["mask_values"]), json.loads(facts["short_side"])) == ([0, 2, 3], 40)
    assert json.loads(facts["classes"]) == CLASSES and len(json.loads(facts["colours"])) == 3


@pytest.mark.slow
def test_a_segmenter_that_is_bound_to_a_size_asks_for_that(tmp_path: Path) -> None:
    run = saved_segmenter(tmp_path / "run", Bound)
    sentence = "as torch-export for images of any size: .*; --fixed-size exports it for images of 32x48 alone$"
    with pytest.raises(ValueError, match=sentence):
        export(run, "torch-export")
    network = torch.export.load(export(run, "torch-export", fixed_size=True).path).module()
    images = torch.randn(2, 3, 32, 48)
    torch.testing.assert_close(network(images), load_student(run)(images))
    with pytest.raises(AssertionError, match="Guard failed"):
        network(torch.randn(2, 3, 33, 48))
    assert export(run, "safetensors").max_difference == 0


def test_scores_that_differ_at_another_size_alone_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(network: nn.Module, card: StudentCard, path: Path, *, axes: dict[int, str]) -> Any:
        path.write_text("written")
        return lambda images: network(images) + (images.shape[2] > 32)

    monkeypatch.setattr(export_module, "_write_torch_export", write)
    run = saved_segmenter(tmp_path / "run", Filled)
    with pytest.raises(ValueError, match="gives other logits .* not written; --fixed-size exports it"):
        export(run, "torch-export")
    assert export(run, "torch-export", fixed_size=True).max_difference == 0


def test_a_fixed_size_is_refused_where_it_would_change_nothing(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--fixed-size has no effect on task=classification"):
        export(trained, "torch-export", fixed_size=True)
    with pytest.raises(ValueError, match="--fixed-size has no effect on the format safetensors"):
        export(saved_segmenter(tmp_path / "other", Filled), "safetensors", fixed_size=True)


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the format safetensors read back the network that a function makes of the true one."""

    def use(spoil: Any) -> None:
        def write(network: nn.Module, card: StudentCard, path: Path, *, axes: dict[int, str]) -> Any:
            path.write_text("written")
            return spoil(network)

        monkeypatch.setattr(export_module, "_write_safetensors", write)

    return use


@pytest.mark.parametrize(
    "spoil", [lambda logits: logits + 3e-3, lambda logits: logits * float("nan"), lambda logits: logits.flip(1)]
)
def test_a_file_with_other_logits_is_not_kept(trained: Path, writes: Any, spoil: Any) -> None:
    writes(lambda network: lambda images: spoil(network(images)))
    with pytest.raises(ValueError, match="gives other logits than the network, by up to .* allowed; .* not written"):
        export(trained, "safetensors")
    assert list((trained / "export").iterdir()) == []


def test_rounding_is_allowed(trained: Path, writes: Any) -> None:
    writes(lambda network: lambda images: network(images) + 5e-5)
    path, difference = export(trained, "safetensors")
    assert path.read_text() == "written" and difference == pytest.approx(5e-5, rel=0.01)


def test_a_network_that_cannot_be_exported_is_named(trained: Path, writes: Any) -> None:
    def fixed_batch(network: nn.Module) -> Any:
        def run(images: Tensor) -> Tensor:
            if len(images) != 1:
                raise RuntimeError("batch is 1\nand a long trace")
            return network(images)

        return run

    writes(fixed_batch)
    sentence = "^cifar:resnet8 cannot be exported as safetensors: on images of 16x16 it raises RuntimeError: batch is 1"
    with pytest.raises(ValueError, match=sentence):
        export(trained, "safetensors")
    writes(lambda network: lambda images: network(images)[:1])
    with pytest.raises(ValueError, match=r"its logits have shape \(1, 3\) instead of \(3, 3\)"):
        export(trained, "safetensors")
    assert list((trained / "export").iterdir()) == []


def test_a_failed_export_leaves_the_one_before(trained: Path, writes: Any) -> None:
    path = export(trained, "safetensors").path
    before = path.read_bytes()
    writes(lambda network: lambda images: network(images) + 1)
    with pytest.raises(ValueError):
        export(trained, "safetensors")
    assert path.read_bytes() == before


def test_links_in_the_run_folder_are_not_written_through(trained: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    (trained / "export").symlink_to(outside)
    with pytest.raises(ValueError, match="export is a link, and nothing is written through it; name another folder"):
        export(trained, "safetensors")
    (trained / "export").unlink()
    (trained / "export").mkdir()
    for name in ("student.safetensors", ".student.tmp.safetensors"):  # the file, and how its draft was once called
        (trained / "export" / name).symlink_to(outside / "precious")
    assert not export(trained, "safetensors").path.is_symlink()
    assert [file.name for file in outside.iterdir()] == ["precious"]
    assert (outside / "precious").read_text() == "precious"


def test_wrong_words_get_the_nearest_right_ones(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no export format is called 'onx'; did you mean 'onnx'?"):
        export(trained, "onx")
    with pytest.raises(ValueError, match="the choice is: safetensors, onnx, torch-export"):
        export(trained, "pickle")
    with pytest.raises(ValueError, match="net.pt must end in .safetensors for the format safetensors, or be a folder"):
        export(trained, "safetensors", out=tmp_path / "net.pt")
    with pytest.raises(ValueError, match="is not a run folder"):
        export(tmp_path, "safetensors")


def test_a_folder_as_target_gets_the_usual_name(trained: Path, tmp_path: Path) -> None:
    assert export(trained, "safetensors", out=str(tmp_path)).path == tmp_path / "student.safetensors"


def test_onnx_without_its_packages_says_how_to_get_them(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "find_spec", lambda package: None)
    with pytest.raises(ValueError, match=r'needs onnx, onnxscript, onnxruntime: pip install "selfdistill\[onnx\]"'):
        export(trained, "onnx")


def test_onnx_refuses_weights_beyond_one_file(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(export_module, "ONNX_LIMIT", 1000)
    with pytest.raises(ValueError, match="cannot be exported as onnx: its weights take .* use torch-export"):
        export(trained, "onnx")
