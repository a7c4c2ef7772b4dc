"""Files of weights that other programs wrote."""

import argparse

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from selfdistill.runs.state_dicts import find_weights_file, read_state_dicts


def test_tensors_are_found_wherever_they_are_nested(tmp_path):
    weight = torch.ones(2)
    torch.save(
        {"a": weight, "epoch": 3, "state": {"net": {"b": weight}, 0: {"c": weight}}, "args": argparse.Namespace(lr=1)},
        tmp_path / "x.pth",
    )
    found = read_state_dicts(tmp_path / "x.pth")
    assert {label: [*tensors] for label, tensors in found.items()} == {"": ["a"], "state.net": ["b"]}
    save_file({"a": weight}, tmp_path / "x.safetensors")
    assert [*read_state_dicts(tmp_path / "x.safetensors")[""]] == ["a"]


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("new_format", [True, False])
def test_nothing_in_a_file_is_executed(tmp_path, new_format):
    file = tmp_path / "evil.pth"
    torch.save({"a": torch.ones(1), "b": Evil(str(tmp_path / "made"))}, file, _use_new_zipfile_serialization=new_format)
    with pytest.raises(
        ValueError, match=r"is refused: reading it would run code \(.*open\); where it comes from, save"
    ):
        read_state_dicts(file)
    assert not (tmp_path / "made").exists()


def test_what_holds_no_weights_is_refused_in_one_sentence(tmp_path):
    torch.save(nn.Linear(1, 1), tmp_path / "whole.pt")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    (tmp_path / "text.pt").write_bytes(b"hello world")
    (tmp_path / "cut.safetensors").write_bytes(b"\x08")
    expected = {
        "whole.pt": r"would run code \(torch.nn.modules.linear.Linear\)",
        "empty.pt": "holds no tensors by name",
        "text.pt": "cannot be read as weights",
        "cut.safetensors": "is truncated or damaged",
    }
    for name, sentence in expected.items():
        with pytest.raises(ValueError, match=sentence):
            read_state_dicts(tmp_path / name)


def test_a_file_is_told_from_a_run_folder(tmp_path):
    assert find_weights_file(tmp_path) is None
    (tmp_path / "model.safetensors").touch()
    assert find_weights_file(tmp_path) == find_weights_file(tmp_path / "model.safetensors")
    (tmp_path / "recipe.yaml").touch()
    assert find_weights_file(tmp_path) is None
    with pytest.raises(ValueError, match="there is no file of weights .*missing.pth"):
        find_weights_file(tmp_path / "missing.pth")
