"""Runs on shards: a stop and another number of loader processes change no bit."""

from pathlib import Path

import pytest
import torch

from helpers.runs import StopAt, recipe, train, weights
from helpers.streams import write_shards
from selfdistill.training.signals import Interrupted


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards"))


@pytest.mark.slow
@pytest.mark.parametrize("stream", [0, 2])
def test_a_run_on_shards_that_was_stopped_ends_with_the_same_weights_bit_for_bit(tmp_path, shards, stream, monkeypatch):
    monkeypatch.setenv("SELFDISTILL_CACHE", str(tmp_path / "cache"))
    data = {"source": str(shards), "stream": stream}
    student = "helpers.plain_students:classifier"
    whole, _, _ = train(recipe(tmp_path / "whole", data=data, student=student))
    settings = recipe(tmp_path / "stopped", data=data, student=student, machine={"cache": "none", "workers": 1})
    with pytest.raises(Interrupted):
        train(settings, StopAt(4))
    resumed, _, _ = train(settings, resume=True)
    assert all(torch.equal(value, weights(resumed)[name]) for name, value in weights(whole).items())
