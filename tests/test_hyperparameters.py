"""Hyper-parameters as classes declare them: defaults, what is legal, and what has no effect."""

from typing import ClassVar

import pytest

from selfdistill.hyperparameters import Configurable, Count, Positive, Share, Weight, hparam
from selfdistill.methods import find_method


class Objective(Configurable):
    not_one: ClassVar[int] = 7
    alpha: Weight = hparam(2.0, "weighs the soft labels", per_pixel=1.0)
    beta: Weight = hparam(1.0, "weighs the maps")
    temperature: Positive = hparam(4.0, "softens both distributions", used_with="alpha")
    warmup: Share = hparam(0.0, "no term before", per_pixel=0.5, short_run=0.0, used_with=("alpha", "beta"))
    ramp: Share = hparam(
        0.0, "growth", per_pixel=0.5, short_run=lambda run: 1.0 - run.settings["warmup"], used_with=("alpha", "beta")
    )
    margin: Share = hparam(0.5, "of the temperature", used_with="temperature")
    plain: Count | None = None

    def __init__(self, output="image", **given):
        self.configure(output, given)


class Fixed(Objective):
    beta = 0.0
    plain = 3
    alpha: Weight = hparam(0.5, "said anew")


def test_an_attribute_reads_as_its_default_and_on_an_instance_as_its_value():
    assert (Objective.alpha, Objective.plain) == (2.0, None)
    assert Objective().alpha == 2.0 and Objective("pixel").alpha == 1.0 and Objective("pixel", alpha=3).alpha == 3.0
    assert Objective.alpha == 2.0


def test_what_is_annotated_with_a_value_is_one_in_the_order_written():
    assert list(Objective.defaults()) == ["alpha", "beta", "temperature", "warmup", "ramp", "margin", "plain"]
    assert Objective.hyperparameters()["alpha"].description == "weighs the soft labels"
    assert Objective.hyperparameters()["plain"].description == ""


def test_a_subclass_fixes_one_by_a_plain_value_and_declares_another_anew():
    assert list(Fixed.defaults()) == ["alpha", "temperature", "warmup", "ramp", "margin"]
    assert Fixed.defaults("pixel")["alpha"] == 0.5 and (Fixed().beta, Fixed().plain) == (0.0, 3)
    with pytest.raises(ValueError, match="Fixed has no hyper-parameter 'beta'"):
        Fixed(beta=1.0)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [(True, "alpha=True should be a number, not true or false"), ("1_0", "alpha='1_0' should be a number in plain")],
)
def test_what_does_not_read_as_a_number_is_none(value, sentence):
    with pytest.raises(ValueError, match=sentence):
        Objective(alpha=value)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"alpha": 0, "temperature": 2}, "Objective: temperature=2.0 has no effect with alpha=0"),
        ({"alpha": 0, "margin": 0.1}, "Objective: margin=0.1 has no effect with alpha=0"),
        ({"alpha": 0, "beta": 0, "ramp": 0.2}, "Objective: ramp=0.2 has no effect with alpha=0 and beta=0"),
    ],
)
def test_a_value_without_effect_is_refused(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        Objective(**given)


@pytest.mark.parametrize("given", [{"alpha": 0}, {"alpha": 0, "temperature": 4.0}, {"alpha": 0, "ramp": 0.2}], ids=str)
def test_a_default_without_effect_and_a_value_with_one_are_no_offence(given):
    assert Objective(**given).alpha == 0


def test_a_default_is_that_of_the_task():
    assert Objective("pixel", alpha=0, beta=0).ramp == 0.5
    with pytest.raises(ValueError, match="ramp=0.5 has no effect"):
        Objective("image", alpha=0, beta=0, ramp=0.5)


@pytest.mark.parametrize("settings", [{"alpha": -1}, {"alpha": "x"}, {"warmup": 1.5}, {"plain": 0}], ids=str)
def test_illegal_values_are_refused_by_name(settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"Objective: {name}="):
        Objective(**settings)


@pytest.mark.parametrize(
    ("output", "given", "chosen"),
    [
        ("image", {}, {"ramp": 1.0}),
        ("pixel", {}, {"warmup": 0.0, "ramp": 1.0}),
        ("image", {"warmup": 0.25}, {"ramp": 0.75}),
        ("image", {"ramp": 0}, {}),
        ("pixel", {"ramp": 0.5}, {"warmup": 0.0}),
        ("pixel", {"alpha": 0}, {"warmup": 0.0, "ramp": 1.0}),
        ("pixel", {"alpha": 0, "beta": 0}, {}),
    ],
)
def test_a_short_run_has_defaults_of_its_own_where_they_have_an_effect(output, given, chosen):
    assert Objective.short_run_defaults(output, given, 100) == chosen
    of_its_own = {"levels": 1} | ({"alpha": 0.0} if output == "pixel" and "alpha" not in given else {})
    assert find_method("frskd").short_run_defaults(output, given, 100) == chosen | of_its_own
    assert find_method("frskd").short_run_defaults(output, given, 20_000) == {}
    Objective(output, **given, **chosen)


@pytest.mark.parametrize(
    "steps, ramp", [(1, 1.0), (650, 1.0), (1_860, 0.3), (7_800, 0.1), (15_600, 0.0), (20_000, 0.0)]
)
def test_the_ramp_of_frskd_takes_about_as_many_steps_in_longer_runs(steps, ramp):
    frskd = find_method("frskd")
    levels = {"levels": 1 if steps < 1_200 else 2} if steps < 20_000 else {}
    assert frskd.short_run_defaults("image", {}, steps) == ({"ramp": ramp} if ramp else {}) | levels
    late = {"ramp": min(ramp, 0.25)} if ramp else {}
    assert frskd.short_run_defaults("image", {"start": 0.75}, steps) == late | levels
    if steps < 20_000:
        masks = {"warmup": 0.0} | ({"levels": 1, "alpha": 0.0} if steps < 1_200 else {"temperature": 4.0})
        assert frskd.short_run_defaults("pixel", {}, steps) == {**masks, "ramp": ramp}
        assert frskd.short_run_defaults("pixel", {"start": 0.75}, steps) == {**masks, "ramp": min(ramp, 0.25)}
