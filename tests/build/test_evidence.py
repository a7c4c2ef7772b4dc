"""What a run with a method says of the evidence for it at its start."""

import pytest

from helpers.evidence import LOST, OPEN, WON, entry
from helpers.runs import recipe
from selfdistill.build import build
from selfdistill.build.evidence import Interval, note_evidence
from selfdistill.data import OpenedData
from selfdistill.tasks import complete_recipe

ALIKE = {"images": 80, "epochs": 2, "longest": 4}  # as the runs of `recipe`


@pytest.fixture
def say(tmp_path):
    """The note of a run, without its beginning."""

    def say(**changes):
        notes = note_evidence(complete_recipe(recipe(tmp_path, **changes)), OpenedData())
        return [note.removeprefix("evidence: ") for note in notes]

    return say


@pytest.mark.parametrize(
    ("gains", "verdict"),
    [
        ((WON, OPEN), "beat plain training of the same time in top-1"),
        ((LOST, WON), "lost to plain training of the same time in top-1"),
        ((OPEN, WON), "beat plain training of the same time in NLL"),
        ((OPEN, LOST), "lost to plain training of the same time in NLL"),
        ((OPEN, OPEN), "could not be told from plain training of the same time"),
    ],
)
def test_a_run_says_what_was_found_of_its_method_in_runs_like_it(say, evidence, gains, verdict):
    evidence(entry("frskd", *gains, **ALIKE))
    (note,) = say(method="frskd")
    assert note.startswith(
        "with 2,000 cats, 2 epochs, which is the most like this run of what was measured with such settings, "
        f"frskd {verdict}: "
    )
    assert f"{gains[0].mean:+.1f} points of top-1 [{gains[0].low:.1f}, {gains[0].high:.1f}]" in note


def test_of_the_arms_whose_settings_a_run_has_the_one_with_most_is_named(say, evidence):
    evidence(*(entry(arm, **ALIKE) for arm in ("frskd", "frskd+beta=0", "frskd+beta=0+depth=1")))
    for settings, arm in (
        ({}, "frskd"),
        ({"beta": 0}, "frskd+beta=0"),
        ({"beta": 0, "alpha": 3.0}, "frskd+beta=0"),
        ({"beta": 0, "depth": 1}, "frskd+beta=0+depth=1"),
        ({"depth": 1}, "frskd"),
    ):
        (note,) = say(method={"name": "frskd", **settings})
        assert f"measured with such settings, {arm} beat" in note


def test_the_form_of_the_method_that_gained_more_is_named_too(say, evidence):
    better, other = entry("frskd+levels=1", Interval(2.5, 2.0, 3.0), **ALIKE), entry("sad", Interval(9, 8, 10), **ALIKE)
    evidence(entry("frskd", LOST, **ALIKE), better, other)
    (note,) = say(method="frskd")
    assert "frskd lost to plain training" in note
    gains = "+2.5 points of top-1 [2.0, 3.0] and +0.500 nats of NLL [-1.000, 2.000]"
    assert note.endswith(f"; the form of it that gained most there is frskd+levels=1: {gains}")
    (note,) = say(method={"name": "frskd", "levels": 1})
    assert "the form of it" not in note


def test_what_has_the_settings_of_the_run_counts_before_what_is_nearer(say, evidence):
    further = ALIKE | {"epochs": 3, "longest": 6}
    evidence(
        entry("frskd+beta=0", **ALIKE), entry("frskd+levels=2", OPEN, **further), entry("frskd+depth=1", **further)
    )
    (note,) = say(method={"name": "frskd", "levels": 2})
    assert "3 epochs, which is the most like this run of what was measured with such settings, frskd+levels=2 " in note
    assert "gained most there is frskd+depth=1" in note and "beta=0" not in note


def test_where_nothing_alike_was_measured_that_is_said_once_the_method_was_measured_at_all(say, evidence):
    evidence(entry(epochs=60), entry("tfd", gain=None, nll_gain=None, **ALIKE))
    (note,) = say(method="frskd")
    assert note.startswith(
        "nothing like classification of 80 images in 10 classes from random weights, 2 epochs was measured with frskd; "
    )
    assert say(method="tfd") == say(method="sad") == say(method="baseline") == []
    evidence(entry("frskd+beta=0", **ALIKE))
    assert say(method="frskd")[0].startswith("nothing like")


def test_the_note_stands_among_those_of_a_run_and_is_not_repeated_for_auto(tmp_path, evidence):
    evidence(entry(**ALIKE))
    said = [note for note in build(recipe(tmp_path, method="frskd")).notes if note.startswith("evidence: ")]
    assert len(said) == 1
    notes = build(recipe(tmp_path, method="auto")).notes
    assert notes[0].startswith("auto takes frskd: ") and not [note for note in notes if note.startswith("evidence")]
    assert not [note for note in build(recipe(tmp_path, method="frskd"), goes_on=True).notes if "evidence" in note]


@pytest.mark.parametrize(("settings", "arm"), [({}, "frskd+levels=1"), ({"levels": None}, "frskd+levels=null")])
def test_what_was_chosen_for_the_length_of_a_run_counts_as_what_was_set(tmp_path, evidence, settings, arm):
    evidence(*(entry(f"frskd+levels={levels}", **ALIKE) for levels in ("null", 2, 1)))
    made = build(recipe(tmp_path, method={"name": "frskd", **settings}))
    assert any(f"of what was measured with such settings, {arm} beat" in note for note in made.notes)
