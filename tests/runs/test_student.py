"""The student of a run comes back as the plain network, and a card that is damaged is named."""

import contextlib
import hashlib
import json
import math
import os
import random
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from selfdistill.config.recipe import Recipe
from selfdistill.models import build_student
from selfdistill.runs.environment import Environment
from selfdistill.runs.folder import Run
from selfdistill.runs.records import WarningRecord
from selfdistill.runs.student import (
    MaskCard,
    NetworkCard,
    StudentCard,
    is_own_card,
    load_student,
    read_card,
    save_student,
    store_temperature,
)
from selfdistill.runs.weights import save_weights

NETWORK = NetworkCard(name="cifar:resnet8", num_classes=3, image_shape=(3, 16, 16))
CARD = StudentCard(task="classification", classes=("a", "b", "c"), student=NETWORK, data={}, method="frskd", step=7)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "runs" / "first", Recipe())


def plain() -> nn.Module:
    return build_student("cifar:resnet8", num_classes=3, image_shape=(3, 16, 16))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def test_the_student_comes_back_as_the_plain_network(run: Run) -> None:
    student = plain().to(memory_format=torch.channels_last).train()
    student(torch.randn(4, 3, 16, 16))  # batch-norm statistics away from their start
    save_student(run, student.state_dict(), CARD)
    before = torch.get_rng_state()
    loaded = load_student(str(run.path))
    assert torch.equal(torch.get_rng_state(), before)
    assert not any(part.training for part in loaded.modules())
    assert list(loaded.state_dict()) == list(plain().state_dict())
    torch.testing.assert_close(loaded.state_dict(), student.state_dict(), rtol=0, atol=0)
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(loaded(images), student.eval()(images))


def test_student_json_says_what_is_needed_to_use_the_network(run: Run) -> None:
    scores = {"top1": 0.5, "nll": 0.25}
    save_student(run, plain().state_dict(), CARD.model_copy(update={"scores": scores}))
    values = json.loads((run.path / "student.json").read_text())
    assert values["format"] == 1 and values["selfdistill"] == version("selfdistill") and "masks" not in values
    assert values["student"] == {**NETWORK.model_dump(), "image_shape": [3, 16, 16]}
    digest = hashlib.sha256((run.path / "student.safetensors").read_bytes()).hexdigest()
    assert read_card(run.path) == CARD.model_copy(update={"scores": scores, "weights_sha256": digest})


def test_student_json_is_read_by_programs_that_know_no_nan(run: Run) -> None:
    scores = {"miou": 0.5, "iou": (0.5, math.nan), "nll": math.inf}
    save_student(run, plain().state_dict(), CARD.model_copy(update={"scores": scores}))
    text = (run.path / "student.json").read_text()
    scores = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))["scores"]
    assert scores == {"miou": 0.5, "iou": [0.5, None], "nll": None}


def test_whoever_may_read_one_file_of_a_run_may_read_all(run: Run) -> None:
    save_student(run, plain().state_dict(), CARD)
    run.save_checkpoint({"step": 1})
    run.append(WarningRecord(epoch=1, step=1, text="a"))
    run.write_environment(Environment())
    run.log("a")
    assert len({entry.stat().st_mode for entry in run.path.iterdir()}) == 1
    assert len(list(run.path.iterdir())) == 7


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.register_buffer("start", self.first.bias.detach()[:2])


def test_shared_weights_are_kept_under_each_name(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    tied = Tied()
    save_weights(tmp_path / "tied.safetensors", tied.state_dict())
    weights = load_file(tmp_path / "tied.safetensors")
    assert weights.keys() == tied.state_dict().keys()
    Tied().load_state_dict(weights, strict=True)
    assert torch.equal(weights["second.weight"], tied.first.weight)


def test_a_state_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'_extra_state' of the student is no tensor"):
        save_weights(tmp_path / "a.safetensors", {"w": torch.zeros(1), "_extra_state": {"a": 1}})


def edited(run: Run, **changes: Any) -> None:
    path = run.path / "student.json"
    values = {name: value for name, value in json.loads(path.read_text()).items() if name != "checksum"}
    path.write_text(json.dumps(values | changes))


def test_a_student_that_does_not_fit_is_refused(run: Run) -> None:
    save_student(run, plain().state_dict(), CARD)
    edited(run, student={**NETWORK.model_dump(), "num_classes": 5}, classes=[*"abcde"])
    with pytest.raises(
        ValueError, match=r"does not fit cifar:resnet8: for .* \(3, .*\) instead of \(5, .*, and 1 more"
    ):
        load_student(run.path)
    weights = plain().state_dict()
    first = next(iter(weights))
    save_student(run, {**weights, "extra": torch.zeros(1)}, CARD)
    with pytest.raises(ValueError, match=r"for extra it holds \(1,\) instead of nothing$"):
        load_student(run.path)
    del weights[first]
    save_student(run, weights, CARD)
    with pytest.raises(ValueError, match=f"for {first} it holds nothing instead of"):
        load_student(run.path)


def test_a_damaged_or_missing_student_is_named(run: Run) -> None:
    with pytest.raises(ValueError, match="holds no student yet"):
        load_student(run.path)
    save_student(run, plain().state_dict(), CARD)
    truncate(run.path / "student.safetensors")
    with pytest.raises(ValueError, match="student.safetensors is damaged or of another step than student.json"):
        load_student(run.path)
    (run.path / "student.safetensors").unlink()
    with pytest.raises(ValueError, match="holds no student.safetensors"):
        load_student(run.path)
    (run.path / "student.json").write_text('{"format": 1, "classes": []}')
    with pytest.raises(ValueError, match="student.json is damaged: it has no 'task'"):
        load_student(run.path)
    (run.path / "student.json").write_text('{"format": 1, "cl')
    with pytest.raises(ValueError, match="student.json cannot be read as JSON.*--resume .*writes it anew"):
        load_student(run.path)


def flip_bit(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


@pytest.mark.slow
def test_every_flipped_bit_of_the_weights_is_noticed(run: Run) -> None:
    save_student(run, plain().state_dict(), CARD)
    file = run.path / "student.safetensors"
    whole = file.read_bytes()
    for bit in [*range(8), *random.Random(0).sample(range(8 * len(whole)), 30)]:
        flip_bit(file, bit)
        with pytest.raises(ValueError, match="student.safetensors is damaged or of another step than student.json"):
            load_student(run.path)
        file.write_bytes(whole)
    load_student(run.path)


@pytest.mark.slow
def test_every_flipped_bit_of_the_card_is_noticed(run: Run) -> None:
    save_student(run, plain().state_dict(), CARD)
    file = run.path / "student.json"
    whole = file.read_bytes()
    last_lines, signature = whole.index(b'"checksum"'), json.loads(whole)["signature"].encode()
    signature_start = whole.index(signature)
    bits = [*range(8 * last_lines, 8 * len(whole)), *random.Random(0).sample(range(8 * last_lines), 100)]
    for bit in bits:
        if 0 <= bit // 8 - signature_start < len(signature) or bit // 8 == len(whole) - 1:
            continue  # a wrong signature is a stranger's, and the last character may be any space
        flip_bit(file, bit)
        with contextlib.suppress(ValueError):
            read_card(run.path)
            assert json.loads(file.read_bytes()) == json.loads(whole), f"bit {bit}"  # one space for another
        file.write_bytes(whole)


def test_weights_and_card_are_of_one_step_whenever_a_save_is_cut(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = {step: plain().state_dict() for step in (1, 2)}
    save_student(run, steps[1], CARD.model_copy(update={"step": 1}))
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    replace, finished = os.replace, 0
    while finished < 4:
        calls = 0

        def cut(source: Any, target: Any, last: int = finished) -> None:
            nonlocal calls
            if calls == last:
                raise KeyboardInterrupt
            calls += 1
            replace(source, target)

        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            patch.setattr(os, "replace", cut)
            save_student(run, steps[2], CARD.model_copy(update={"step": 2}))
        card, weights = read_card(run.path), load_student(run.path).state_dict()
        torch.testing.assert_close(weights, dict(steps[card.step]), rtol=0, atol=0, check_device=False)
        assert card.step == (1 if finished < 2 else 2)
        for path in run.path.iterdir():
            path.unlink()
        for name, content in before.items():
            (run.path / name).write_bytes(content)
        finished += 1


def test_mask_values_that_no_mask_has_come_back(run: Run) -> None:
    masks = MaskCard(values=(0, 65535, -1), colours=((0, 0, 0),) * 3)
    save_student(run, plain().state_dict(), CARD.model_copy(update={"masks": masks}))
    assert read_card(run.path).masks == masks


def test_weights_of_nan_are_an_error(run: Run) -> None:
    state = plain().state_dict()
    first = next(iter(state))
    save_student(run, {**state, first: torch.full_like(state[first], math.nan)}, CARD)
    with pytest.raises(ValueError, match=rf"student.safetensors holds NaN or infinite values, in {first} for one"):
        load_student(run.path)


def test_a_card_of_an_older_version_has_no_checksum_and_loads(run: Run) -> None:
    save_student(run, plain().state_dict(), CARD)
    path = run.path / "student.json"
    newer = ("checksum", "signature", "weights_sha256")
    path.write_text(
        json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name not in newer})
    )
    load_student(run.path)


def test_a_newer_format_is_refused(run: Run) -> None:
    save_student(run, plain().state_dict(), CARD)
    edited(run, format=2, selfdistill="9.1")
    with pytest.raises(ValueError, match="has format 2, written by selfdistill 9.1, .* reads format 1; upgrade it"):
        read_card(run.path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"classes": "abc"}, "classes='abc' should be a valid"),
        ({"classes": [0, 1, 2]}, r"classes.0=0 should be a valid string"),
        ({"step": "7"}, "step='7' should be a valid integer"),
        (
            {"student": {**NETWORK.model_dump(), "num_classes": "3"}},
            "student.num_classes='3' should be a valid integer",
        ),
        ({"student": {**NETWORK.model_dump(), "image_shape": [3, 16]}}, "it has no 'student.image_shape.2'"),
        ({"student": {"name": "cifar:resnet8"}}, "it has no 'student.num_classes'"),
        ({"data": {"meen": [0.5]}}, r"data.meen=\[0.5\]"),
        ({"data": {"mean": [0.5]}}, r".* data.mean has 1 items and should have 3"),
        (
            {"student": {**NETWORK.model_dump(), "image_shape": [3, 10**6, 10**6]}},
            ".* student.image_shape has more pixels than data.max_megapixels=64",
        ),
        ({"data": {"channels": 1}}, r".* data.channels=1 and the network takes 3"),
        ({"classes": ["a", "b"]}, r".* classes has 2 items and should have 3"),
        ({"masks": {"values": [0, 1, 70000], "colours": [[0, 0, 0]] * 3}}, "masks.values.2=70000 should be less than"),
        ({"student": {**NETWORK.model_dump(), "image_shape": [3, 0, 16]}}, "student.image_shape.1=0 should be greater"),
        ({"masks": {"values": [0, 1, 2]}}, "it has no 'masks.colours'"),
    ],
)
def test_a_card_with_wrong_values_is_one_sentence_that_names_the_file(run: Run, changes: Any, sentence: str) -> None:
    save_student(run, plain().state_dict(), CARD)
    edited(run, **changes)
    with pytest.raises(ValueError, match=rf"^.*student\.json is damaged: {sentence}") as caught:
        read_card(run.path)
    assert "\n" not in str(caught.value)


def test_a_temperature_is_added_to_the_card_and_nothing_else_changes(run: Run) -> None:
    save_student(run, plain().state_dict(), CARD)
    before = json.loads((run.path / "student.json").read_text())
    assert "temperature" not in before and read_card(run.path).temperature is None
    store_temperature(run.path, 1.5)
    card, after = read_card(run.path), json.loads((run.path / "student.json").read_text())
    assert card.temperature == 1.5 and is_own_card(run.path)
    assert {**after, "temperature": None, "checksum": 0, "signature": 0} == {
        **before,
        "temperature": None,
        "checksum": 0,
        "signature": 0,
    }
    load_student(run.path)


def test_a_strangers_card_is_not_signed_by_writing_into_it(run: Run, monkeypatch, tmp_path: Path) -> None:
    save_student(run, plain().state_dict(), CARD)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another machine"))
    with pytest.raises(ValueError, match="not signed by this machine"):
        store_temperature(run.path, 1.5)
    store_temperature(run.path, 1.5, trust=True)
    assert read_card(run.path, trust=True).temperature == 1.5 and not is_own_card(run.path)


@pytest.mark.parametrize("temperature", [0, -1, "hot", float("inf")])
def test_a_temperature_that_is_none_is_refused(temperature) -> None:
    with pytest.raises(ValueError):
        StudentCard.model_validate({**CARD.model_dump(), "temperature": temperature})
