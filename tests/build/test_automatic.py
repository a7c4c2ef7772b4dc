"""method=auto: the arm that won in runs like this one, said, and settled in the run's recipe."""

import pytest

from helpers.evidence import LOST, OPEN, RUN, WON, entry
from helpers.runs import recipe
from selfdistill.build import automatic, build
from selfdistill.build.automatic import Choice, choose_arm
from selfdistill.build.evidence import Interval, Situation, read_evidence
from selfdistill.config.read import parse
from selfdistill.data import OpenedData
from selfdistill.methods import find_method, list_methods
from selfdistill.tasks import complete_recipe


@pytest.mark.parametrize(
    ("entries", "arm"),
    [
        ([entry()], "frskd"),
        ([entry(gain=OPEN)], "baseline"),
        ([entry(nll_gain=LOST)], "baseline"),  # more accurate, with worse probabilities
        ([entry(), entry("sad", Interval(2.5, 0.5, 4.5))], "sad"),  # the largest mean
        ([entry(), entry("sad", Interval(2.5, -0.5, 4.5), WON)], "frskd"),  # accuracy comes first
        ([entry(gain=OPEN), entry("sad", OPEN, WON)], "sad"),  # then NLL
        ([entry(gain=LOST, nll_gain=WON)], "baseline"),
    ],
)
def test_the_arm_that_gains_most_is_taken_unless_the_other_score_loses(entries, arm):
    assert choose_arm(entries, RUN).arm == arm


@pytest.mark.parametrize(
    ("changes", "arm"),
    [
        ({"images": 500}, "frskd"),
        ({"images": 499}, "baseline"),
        ({"images": 8001}, "baseline"),
        ({"classes": 3}, "frskd"),
        ({"classes": 2}, "baseline"),
        ({"classes": 41}, "baseline"),
        ({"epochs": 30}, "frskd"),
        ({"epochs": 29}, "baseline"),
        ({"steps": 620}, "frskd"),
        ({"steps": 619}, "baseline"),
        ({"task": "segmentation"}, "baseline"),
        ({"start": "trained"}, "baseline"),
        ({"price": 2.09}, "frskd"),
        ({"price": 2.2}, "baseline"),  # dearer than the longest plain run
        ({"price": None}, "baseline"),
        ({"gain": None, "nll_gain": None, "seeds": (10, 11)}, "baseline"),
    ],
)
def test_only_what_was_measured_on_like_runs_in_equal_time_counts(changes, arm):
    assert choose_arm([entry(**changes)], RUN).arm == arm


def test_of_each_family_that_is_alike_the_nearest_length_counts():
    near, longer = entry("sad", OPEN), entry("sad", epochs=90, longest=180)
    assert choose_arm([near, longer], RUN).arm == "baseline"
    assert choose_arm([near, longer], RUN._replace(epochs=100)).arm == "sad"


@pytest.mark.parametrize(("epochs", "arm"), [(75, "frskd"), (76, "baseline")])
def test_lengths_that_hardly_differ_count_as_one(epochs, arm):
    control = entry("label_smoothing", OPEN, epochs=epochs, longest=180)
    assert choose_arm([entry(), control], RUN._replace(epochs=epochs)).arm == arm


def test_an_arm_of_several_such_lengths_counts_once_at_the_nearest():
    near, longer = entry(gain=OPEN), entry(epochs=70, longest=180)
    assert choose_arm([near, longer], RUN).arm == "baseline"
    assert choose_arm([near, longer], RUN._replace(epochs=70)).arm == "frskd"


@pytest.mark.parametrize(
    ("near", "far", "arm"),
    [
        (OPEN, WON, "frskd"),
        (WON, OPEN, "frskd"),
        (WON, LOST, "baseline"),
        (LOST, WON, "baseline"),
        (OPEN, OPEN, "baseline"),
        (None, WON, "baseline"),  # not measured with the nearest family
    ],
)
def test_an_arm_must_win_in_one_family_that_is_alike_and_lose_in_none(near, far, arm):
    measured = [entry("sad", OPEN), *([entry(gain=near)] if near else [])]
    other = [entry(family="5,000 cats", images=5000, gain=far), entry("sad", OPEN, family="5,000 cats", images=5000)]
    choice = choose_arm([*other, *measured], RUN)
    assert choice.arm == arm and ("without losing to it elsewhere" in choice.note) == (LOST in (near, far))


def test_of_several_the_largest_mean_over_the_families_is_taken_and_what_was_not_measured_is_no_gain():
    wide = Interval(0.5, 0.1, 0.9)
    cats = [entry("sad", Interval(2.1, 1.0, 3.2)), entry("frskd", WON)]
    breeds = [entry("sad", wide, family="breeds", classes=30), entry("frskd", WON, family="breeds", classes=30)]
    assert choose_arm(cats, RUN).arm == "sad"
    assert choose_arm([*cats, *breeds], RUN).arm == "frskd"
    assert choose_arm([*cats, breeds[0]], RUN).arm == "sad"
    assert choose_arm([*cats, breeds[1]], RUN).arm == "frskd"


def test_the_note_names_what_every_family_says():
    note = choose_arm([entry(gain=OPEN), entry(family="5,000 cats", images=5000)], RUN).note
    assert note == (
        "auto takes frskd: with 2,000 cats, 60 epochs (1,860 steps), which is the most like this run of what was "
        "measured, it could not be told from plain training of the same time: +0.5 points of top-1 [-1.0, 2.0] and "
        "+0.500 nats of NLL [-1.000, 2.000] (+ is better; 95 % intervals over 3 seeds of one network); with 5,000 "
        "cats, 60 epochs (1,860 steps), it beat plain training of the same time in top-1: +2.0 points of top-1 "
        "[1.0, 3.0] and +0.500 nats of NLL [-1.000, 2.000] (3 seeds); a step took 2 times the time of a plain one there"
    )


def test_the_note_names_the_evidence_how_sure_it_is_and_the_price():
    like = "with 2,000 cats, 60 epochs (1,860 steps), which is the most like this run of what was measured"
    sure = "(+ is better; 95 % intervals over 3 seeds of one network)"
    find_out = "a comparison (`selfdistill compare`, with controls=auto) finds out for your data"
    assert choose_arm([entry()], RUN).note == (
        f"auto takes frskd: {like}, it beat plain training of the same time in top-1: +2.0 points of top-1 [1.0, 3.0] "
        f"and +0.500 nats of NLL [-1.000, 2.000] {sure}; a step took 2 times the time of a plain one there"
    )
    assert choose_arm([entry(price=1.01)], RUN).note.endswith("; a step took about the time of a plain one there")
    assert choose_arm([entry(gain=OPEN, nll_gain=WON)], RUN).note.startswith(
        f"auto takes frskd: {like}, it beat plain training of the same time in NLL: +0.5 points of top-1 [-1.0, 2.0] "
        "and +2.000 nats"
    )
    assert choose_arm([entry(gain=LOST)], RUN).note == (
        f"auto takes plain training (baseline): {like}, no method beat plain training of the same time; the best of 1 "
        "tried was frskd: -2.0 points of top-1 [-3.0, -1.0] and +0.500 nats of NLL [-1.000, 2.000] "
        f"{sure}; {find_out}"
    )
    assert choose_arm([], RUN).note == (
        "auto takes plain training (baseline): nothing like this run was measured (classification, 2,000 images, 10 "
        f"classes, random weights, 60 epochs, 1,860 steps); {find_out}"
    )
    assert "100 classes, trained weights, 4,115 epochs, 1 step)" in (
        choose_arm([], RUN._replace(classes=100, start="trained", epochs=4115.4, steps=1)).note
    )


def test_a_run_takes_the_arm_says_so_and_holds_it_in_its_recipe(tmp_path, evidence):
    evidence(entry("frskd+beta=0", images=80, epochs=2, steps=10, longest=4))
    experiment = build(recipe(tmp_path, method="auto"))
    method = experiment.recipe.method
    assert method.name == "frskd" and method.hyperparameters["beta"] == 0 == experiment.method.beta
    assert experiment.notes[0].startswith("auto takes frskd+beta=0: with 2,000 cats")
    evidence()
    assert build(experiment.recipe).recipe == experiment.recipe  # whatever is measured later


def test_where_nothing_alike_was_measured_a_run_is_plain_and_says_so(tmp_path, evidence):
    evidence(entry())
    experiment = build(recipe(tmp_path, method="auto", max_steps=4))
    assert experiment.recipe == build(recipe(tmp_path, method="baseline", max_steps=4)).recipe
    assert experiment.notes[0].startswith("auto takes plain training (baseline): nothing like this run was measured")


def test_an_arm_that_does_not_fit_the_settings_is_passed_over(tmp_path, evidence):
    alike = {"images": 80, "epochs": 2, "steps": 10, "longest": 4}
    evidence(*(entry(arm, **alike) for arm in ("baseline+mix=cutmix", "cs_kd", "no_longer_there")))
    for mix in ("none", "cutmix"):
        made = build(recipe(tmp_path, method="auto", mix=mix))
        assert made.recipe.mix.name == "cutmix" and "measured without" not in made.notes[0]
    kept = build(recipe(tmp_path, method="auto", mix="mixup"))
    assert (kept.recipe.method.name, kept.recipe.mix.name) == ("baseline", "mixup")
    assert "no method that was measured with 2,000 cats goes with the other settings of this recipe" in kept.notes[0]


@pytest.mark.parametrize(
    ("changes", "arm"),
    [
        ({"loss": "focal"}, "baseline"),
        ({"label_smoothing": 0.1}, "baseline"),
        ({"loss": "cross_entropy"}, "label_smoothing"),
        ({"loss": "focal"}, "tfd"),
    ],
)
def test_an_arm_with_a_loss_of_its_own_is_passed_over_where_the_recipe_has_another(tmp_path, evidence, changes, arm):
    evidence(entry("tfd" if arm == "tfd" else "label_smoothing", images=80, epochs=2, steps=10, longest=4))
    experiment = build(recipe(tmp_path, method="auto", task={"kind": "classification", **changes}))
    assert experiment.recipe.method.name == arm
    assert experiment.notes[0].endswith("; all of this was measured without task.loss=focal") == (arm == "tfd")


def test_a_student_that_does_not_go_with_the_choice_is_trained_plainly(tmp_path, evidence, monkeypatch):
    evidence(entry("sad", images=80, epochs=2, steps=10, longest=4))
    (tmp_path / "flat.py").write_text(
        "from torch import nn\ndef net(num_classes): return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    experiment = build(recipe(tmp_path, method="auto", student="flat:net"))
    assert experiment.recipe.method.name == "baseline"
    assert "sad, which did best in runs like this one, cannot be trained here: no feature map" in experiment.notes[0]
    with pytest.raises(ValueError, match="flat has no function 'no'"):
        build(recipe(tmp_path, method="auto", student="flat:no"))


def test_what_auto_looks_at_is_told_from_the_recipe(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(automatic, "choose_arm", lambda entries, run: seen.append(run) or Choice("baseline", "so"))
    for changes in (
        {"epochs": None, "max_steps": 10},
        {"student": {"name": "cifar:resnet8", "freeze": ["conv1"]}},
        {"data": "scenes", "task": "segmentation", "student": "smp:Unet/resnet18"},
    ):
        automatic.choose_method(complete_recipe(recipe(tmp_path, **changes)), OpenedData())
    assert seen == [
        Situation("classification", "random", 80, 10, 2.0, 10),
        Situation("classification", "partly frozen", 80, 10, 2.0, 10),
        Situation("segmentation", "random", 400, 11, 2.0, 50),
    ]


def test_settings_beside_auto_are_refused():
    sentence = "method.alpha=2 has no effect with method=auto, which chooses the settings too"
    for method in ({"alpha": 2}, {"taps": ["a"]}, {"teacher": "runs/a"}):
        name, value = next(iter(method.items()))
        with pytest.raises(ValueError) as error:
            parse({"method": {"name": "auto", **method}})
        assert sentence.replace("alpha=2", f"{name}={value}") in str(error.value)


def test_where_a_method_is_made_by_hand_auto_is_refused():
    with pytest.raises(ValueError, match="auto is no method: `selfdistill train`, .* name one here"):
        find_method("auto")


def test_the_shipped_table_can_be_read_and_names_methods_that_are_there():
    entries = read_evidence()
    assert entries and {entry.arm.split("+")[0] for entry in entries} <= set(list_methods())
    assert all(entry.gain is None or len(entry.seeds) >= 3 for entry in entries)
