"""What a run with a method says of the evidence for it at its start."""

import pytest

from helpers.evidence import LOST, OPEN, WON, entry
from helpers.runs import recipe
from selfdistill.build import build
from selfdistill.build.evidence import Interval

ALIKE = {"images": 80, "epochs": 2, "steps": 10, "longest": 4}  # as the runs of `recipe`


@pytest.fixture
def say(tmp_path):
    """The note of a run, without its beginning."""

    def say(**changes):
        notes = build(recipe(tmp_path, **changes)).notes
        return [note.removeprefix("evidence: ") for note in notes if note.startswith("evidence: ")]

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
        f"with 2,000 cats, 2 epochs (10 steps), which is the most like this run of what was measured, frskd {verdict}: "
    )
    assert f"{gains[0].mean:+.1f} points of top-1 [{gains[0].low:.1f}, {gains[0].high:.1f}]" in note


@pytest.mark.parametrize(
    ("settings", "arm", "unlike"),
    [
        ({}, "frskd", ""),
        ({"beta": 0}, "frskd+beta=0", ""),
        ({"beta": 0, "alpha": 3.0}, "frskd+beta=0", "method.alpha=2.0 (not 3.0)"),
        ({"levels": 2, "depth": 1}, "frskd+depth=1+levels=2", ""),
        ({"levels": 2}, "frskd", "method.levels=1 (not 2)"),
        ({"alpha": 0, "beta": 1}, "frskd", "method.alpha=2.0 (not 0.0), method.beta=100.0 (not 1.0)"),
    ],
)
def test_the_arm_that_differs_least_from_a_run_is_named_with_what_differs(say, evidence, settings, arm, unlike):
    evidence(*(entry(arm, **ALIKE) for arm in ("frskd", "frskd+beta=0", "frskd+depth=1+levels=2", "frskd+share=0.5")))
    (note,) = say(method={"name": "frskd", **settings})
    assert f"of what was measured, {arm} beat" in note
    assert ("unlike this run it had" in note) == bool(unlike) and unlike in note


@pytest.mark.parametrize(
    ("changes", "arm", "unlike"),
    [
        ({"mix": "mixup"}, "frskd", 'mix.name="none" (not "mixup")'),
        ({"mix": "cutmix"}, "frskd+mix=cutmix", ""),
        ({"optim": {"ema": 0.9}}, "frskd", "optim.ema=null (not 0.9)"),
        ({"task": {"kind": "classification", "loss": "focal"}}, "frskd", 'task.loss=null (not "focal")'),
        ({"task": {"kind": "classification", "loss": "cross_entropy"}}, "frskd", ""),
        ({"method": {"name": "frskd", "taps": ["layer3"]}}, "frskd", 'method.taps=null (not ["layer3"])'),
    ],
)
def test_what_else_changes_what_is_learned_differs_too(say, evidence, changes, arm, unlike):
    evidence(entry(**ALIKE), entry("frskd+mix=cutmix", OPEN, **ALIKE))
    (note,) = say(**{"method": "frskd", **changes})
    assert f"of what was measured, {arm} " in note
    assert note.count("unlike this run it had") == bool(unlike) and unlike in note


def test_the_form_of_the_method_that_gained_more_is_named_too(say, evidence):
    better, other = entry("frskd+beta=0", Interval(2.5, 2.0, 3.0), **ALIKE), entry("sad", Interval(9, 8, 10), **ALIKE)
    evidence(entry("frskd", LOST, **ALIKE), better, other)
    (note,) = say(method="frskd")
    assert "frskd lost to plain training" in note
    gains = "+2.5 points of top-1 [2.0, 3.0] and +0.500 nats of NLL [-1.000, 2.000]"
    assert note.endswith(f"; the form of it that gained most there is frskd+beta=0: {gains}")
    (note,) = say(method={"name": "frskd", "beta": 0})
    assert "the form of it" not in note
    evidence(entry("frskd", LOST, **ALIKE), entry("frskd+levels=2", LOST._replace(mean=-1.5), **ALIKE))
    assert "; the form of it that lost least there is frskd+levels=2: -1.5 points" in say(method="frskd")[0]


def test_what_has_the_settings_of_the_run_counts_before_what_is_nearer(say, evidence):
    further = ALIKE | {"epochs": 3, "steps": 15, "longest": 6}
    evidence(
        entry("frskd+beta=0", **ALIKE),
        entry("frskd+levels=2", OPEN, **further),
        entry("frskd+depth=1+levels=3", **further),
    )
    (note,) = say(method={"name": "frskd", "levels": 2})
    assert "3 epochs (15 steps), which is the most like this run of what was measured, frskd+levels=2 " in note
    assert "gained most there is frskd+depth=1+levels=3" in note and "beta=0" not in note


def test_where_nothing_alike_was_measured_that_is_said_once_the_method_was_measured_at_all(say, evidence):
    evidence(entry(epochs=60), entry("tfd", gain=None, nll_gain=None, **ALIKE))
    (note,) = say(method="frskd")
    assert note.startswith(
        "nothing like this run was measured with frskd (classification, 80 images, 10 classes, random weights, "
        "2 epochs, 10 steps); a comparison"
    )
    assert say(method="tfd") == say(method="sad") == say(method="baseline") == []
    for steps, is_alike in ((30, True), (31, False)):
        evidence(entry(**ALIKE | {"steps": steps}))
        assert say(method="frskd")[0].startswith("nothing like") != is_alike


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
    assert any(f"of what was measured, {arm} beat" in note for note in made.notes)
