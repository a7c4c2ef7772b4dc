"""A pilot measures steps as training takes them, and leaves nothing behind."""

import pytest
import torch

from helpers.runs import recipe, train, weights
from selfdistill.build import build
from selfdistill.training import pilot

pytestmark = pytest.mark.slow


def test_a_run_after_a_pilot_ends_with_the_same_weights(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(pilot, "MOST_TURNS", 7)
    plain = build(recipe(tmp_path / "plain", method="baseline"))
    ours = build(recipe(tmp_path / "ours", machine={"workers": 1, "track": ["tensorboard"], "cache": "none"}))
    turns = pilot.take_turns(plain, ours)
    assert len(turns.ratios) == 7 and min(*turns.ratios, *turns.costs, *turns.seconds) > 0
    assert pilot.time_scoring(ours) > 0
    assert not (tmp_path / "ours").exists() and not (tmp_path / "plain").exists()
    method, _, _ = train(recipe(tmp_path / "after"))
    expected = weights(whole[0])
    assert all(torch.equal(value, expected[name]) for name, value in weights(method).items())


def test_a_pilot_ends_when_its_time_is_over(tmp_path, monkeypatch):
    monkeypatch.setattr(pilot, "SECONDS", 0.0)
    plain, other = (build(recipe(tmp_path / name, method="baseline")) for name in ("one", "other"))
    assert len(pilot.take_turns(plain, other).ratios) == pilot.LEAST_TURNS
