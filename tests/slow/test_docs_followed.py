"""Pages of the documentation, followed command by command in an empty folder; trainings are one epoch long."""

import json
import sys

import pytest
import timm
import torch
from PIL import Image

from helpers.pages import ROOT, list_blocks, list_commands
from helpers.programs import run

pytestmark = pytest.mark.slow
PAGES = ["quick-start.md", "your-network.md", "new-method.md"]


def shorten(words):
    """The same command with trainings of one epoch."""
    is_long = words[0] in ("train", "compare") and "--resume" not in words and "--dry-run" not in words
    return [*words, "epochs=1"] if is_long else words


@pytest.mark.parametrize("page", PAGES)
def test_a_page_can_be_followed(page, tmp_path):
    Image.new("L", (8, 8), 128).save(tmp_path / "photo.png")
    commands = list_commands(ROOT / "docs" / page)
    assert commands
    for words in commands:
        if words[:2] == ["taps", "timm:resnet18"]:
            words = ["taps", "cifar:resnet8"]  # the same with a network of a tenth of the size
        done = run([sys.executable, "-m", "selfdistill", *shorten(words)], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"


def test_a_student_goes_into_a_detector(tmp_path, monkeypatch):
    """The page's block of Python, after a run as in its command, on small images."""
    (command,) = list_commands(ROOT / "docs/detection.md")
    words = [word if not word.startswith("data=") else "data=digits" for word in command]
    more = ["epochs=1", "max_steps=1", "data.image_size=32", "data.limit=40", "batch_size=8", "data.channels=3"]
    done = run([sys.executable, "-m", "selfdistill", *words, *more], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (block,) = [block for block in list_blocks(ROOT / "docs/detection.md") if block.language == "python"]
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(block.text, names)
    assert names["backbone"].body.layer4[1].conv2.weight.grad.abs().sum() > 0
    assert set(names["losses"]) >= {"loss_classifier", "loss_box_reg"}


def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path):
    notebook = json.loads((ROOT / "examples/first_steps.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    shown = [f"exec(compile({cell!r}, 'cell', 'exec'))" for cell in cells]
    done = run([sys.executable, "-c", "\n".join(shown)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/compared/report.html").exists()
    assert not any(cell.get("outputs") for cell in notebook["cells"])


@pytest.mark.parametrize("page", ["README.md", "docs/own-loop.md"])
def test_the_loop_trains(page, tmp_path, monkeypatch):
    block = next(block for block in list_blocks(ROOT / page) if "after_step" in block.text)
    monkeypatch.chdir(tmp_path)
    batch = torch.randn(4, 3, 64, 64), torch.arange(4)
    exec(block.text, {"total": 2, "loader": [batch, batch]})
    weights = torch.load(tmp_path / "student.pt", weights_only=True)
    timm.create_model("resnet18", num_classes=10).load_state_dict(weights, strict=True)
