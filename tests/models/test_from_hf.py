"""Networks of transformers, and others whose scores lie inside of what they return."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from selfdistill.features.scores import ScoresAlone, find_scores
from selfdistill.models import build_student

SHAPE = {"num_classes": 3, "image_shape": (3, 16, 16)}


class Wrapped(nn.Module):
    """Scores of a quarter of the pixels, under a name."""

    def __init__(self, num_classes, wrap):
        super().__init__()
        self.conv, self.wrap = nn.Conv2d(3, num_classes, 4, 4), wrap

    def forward(self, images):
        return self.wrap(self.conv(images))


def with_logits(num_classes):
    return Wrapped(num_classes, lambda scores: SimpleNamespace(logits=scores.mean(dim=(2, 3)), hidden_states=None))


def with_out(num_classes):
    return Wrapped(num_classes, lambda scores: {"out": scores, "aux": scores})


@pytest.mark.parametrize(("name", "output"), [("with_logits", "image"), ("with_out", "pixel")])
def test_scores_are_found_inside_of_what_a_network_returns(monkeypatch, name, output):
    monkeypatch.setitem(sys.modules, "wrapped_networks", sys.modules[__name__])
    student = build_student(f"wrapped_networks:{name}", output=output, **SHAPE)
    images = torch.rand(2, 3, 16, 16)
    assert student(images).shape == ((2, 3) if output == "image" else (2, 3, 16, 16))
    student(images).sum().backward()
    assert student.network.conv.weight.grad is not None
    assert find_scores((images,)) is None and find_scores({"aux": images}) is None


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match="hf:some/name needs transformers: pip install .selfdistill"):
        build_student("hf:some/name", **SHAPE)


def test_a_folder_of_transformers_is_a_student(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1], layer_type="basic", num_labels=7)
    saved = transformers.ResNetForImageClassification(config)
    saved.save_pretrained(tmp_path)
    student = build_student(f"hf:{tmp_path}", pretrained=True, **SHAPE)
    assert isinstance(student, ScoresAlone) and student(torch.rand(2, 3, 16, 16)).shape == (2, 3)
    name = "resnet.embedder.embedder.convolution.weight"
    assert torch.equal(student.network.state_dict()[name], saved.state_dict()[name])
