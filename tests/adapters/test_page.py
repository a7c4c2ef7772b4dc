"""The examples of docs/adapters.md are true."""

import re
import warnings
from pathlib import Path

import pytest
import timm
import torch

import selfdistill

PAGE = Path(selfdistill.__file__).parents[2] / "docs/adapters.md"
pytestmark = [
    pytest.mark.skipif(not PAGE.exists(), reason="the package is installed without its source tree"),
    pytest.mark.filterwarnings("ignore"),  # those of other libraries, which a user sees without us
]


def read_blocks(heading):
    """The Python of the part of the page under `heading`, behind the images that all parts train on."""
    intro, *parts = re.split(r"^## (.*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    part = dict(zip(parts[::2], parts[1::2], strict=True))[heading]
    return "\n".join(re.findall(r"```python\n(.*?)```", intro + part, flags=re.DOTALL))


def run_example(heading, folder, monkeypatch):
    """Runs it in `folder`, and gives what it defines."""
    monkeypatch.chdir(folder)
    values = {"__name__": "example"}
    torch.manual_seed(0)
    exec(compile(read_blocks(heading), heading, "exec"), values)
    return values


def test_the_example_of_timm(tmp_path, monkeypatch):
    pytest.importorskip("selfdistill.adapters.timm", exc_type=ImportError)
    values = run_example("timm", tmp_path, monkeypatch)
    assert values["task"].num_updates == values["total"]
    timm.create_model("test_resnet", num_classes=10).load_state_dict(torch.load("model.pt"), strict=True)


def test_the_example_of_transformers(tmp_path, monkeypatch):
    pytest.importorskip("selfdistill.adapters.transformers", exc_type=ImportError)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    values = run_example("transformers", tmp_path, monkeypatch)
    values["ResNetForImageClassification"].from_pretrained("out/model")
    assert values["trainer"].state.global_step == 4


def test_the_example_of_lightning(tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("lightning", reason='pip install "selfdistill[lightning]"')
    values = run_example("Lightning", tmp_path, monkeypatch)
    assert values["trainer"].global_step == 4 and 0 <= values["trainer"].callback_metrics["accuracy"] <= 1


def test_the_example_of_accelerate(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    values = run_example("Accelerate, and loops of your own", tmp_path, monkeypatch)
    weights = torch.load("student.pt")
    assert all(torch.equal(value, weights[name]) for name, value in values["student"].state_dict().items())
