"""Controls are the arms that fit the task and the methods, and the baseline of equal cost is as long as it costs."""

import pytest

from helpers.batches import small_task
from helpers.methods import small_method
from selfdistill.build.arms import build_arm_recipe
from selfdistill.commands.controls import choose_equal_cost, is_as_cheap, list_control_arms, parse_controls
from selfdistill.config.read import parse, read
from selfdistill.methods import find_method

ALL = parse_controls("auto")


def test_an_unknown_control_gets_the_nearest_one():
    assert parse_controls("none") == [] and parse_controls("cutmix,equal_cost") == ["cutmix", "equal_cost"]
    with pytest.raises(ValueError, match="did you mean 'equal_cost'"):
        parse_controls("equal_cots")


@pytest.mark.parametrize(
    ("words", "arms", "expected"),
    [
        ((), "baseline frskd", ["label_smoothing", "deep_supervision", "frskd+mix=cutmix"]),
        ((), "baseline cs_kd", ["label_smoothing"]),  # has no self-teacher, and takes hard labels
        ((), "baseline label_smoothing", ["label_smoothing+mix=cutmix"]),
        (("mix=cutmix",), "baseline frskd", ["label_smoothing", "deep_supervision"]),
        (("task.loss=cross_entropy",), "baseline cs_kd", ["label_smoothing"]),
        (("task=multilabel", "task.loss=bce"), "baseline sad", ["label_smoothing", "sad+mix=cutmix"]),
        (("task.loss=focal",), "baseline frskd", ["deep_supervision", "frskd+mix=cutmix"]),
        (("task.label_smoothing=0.1",), "baseline sad", ["sad+mix=cutmix"]),
        (("task=segmentation",), "baseline frskd", ["label_smoothing", "deep_supervision", "frskd+mix=cutmix"]),
        (("task=multilabel",), "baseline frskd", ["label_smoothing", "deep_supervision", "frskd+mix=cutmix"]),
        (("task=helpers.multilabel:MultiLabel",), "baseline frskd", ["deep_supervision"]),
    ],
)
def test_controls_are_those_that_fit(words, arms, expected):
    assert list_control_arms(read(None, words), arms.split(), ALL) == expected


def test_no_control_is_added_that_was_not_named():
    base, arms = read(None, ()), ["baseline", "frskd"]
    assert list_control_arms(base, arms, ["equal_cost"]) == []
    assert list_control_arms(base, arms, ["deep_supervision"]) == ["deep_supervision"]


def choose(settings, paces):
    recipes = {arm: parse({**settings, "method": arm.split("+")[0]}) for arm in ("baseline", *paces)}
    return choose_equal_cost(recipes, [*paces], paces)


def test_the_baseline_of_equal_cost_has_as_many_more_epochs():
    assert choose({"epochs": 30}, {"frskd": 1.9}) == {"frskd": "baseline+epochs=57"}
    assert choose({"epochs": 2}, {"frskd": 1.2}) == {"frskd": "baseline"}  # there is no epoch more to buy
    assert choose({"max_steps": 100}, {"frskd": 1.9}) == {"frskd": "baseline+max_steps=190"}
    assert choose({"epochs": 30, "max_steps": 90}, {"frskd": 2.0}) == {"frskd": "baseline+epochs=60+max_steps=180"}


def test_methods_of_like_cost_share_one_and_cheap_ones_have_the_baseline_itself():
    paces = {"frskd": 2.0, "byot": 2.1, "dks": 3.0, "label_smoothing": 1.02}
    assert choose({"epochs": 100}, paces) == {
        "frskd": "baseline+epochs=200",
        "byot": "baseline+epochs=200",
        "dks": "baseline+epochs=300",
        "label_smoothing": "baseline",
    }


@pytest.mark.parametrize(
    ("arm", "expected"),
    [
        ("label_smoothing", True),
        ("label_smoothing+mix=cutmix", True),
        ("label_smoothing+batch_size=8", False),
        ("frskd", False),
        ("cs_kd", False),  # shows further images
    ],
)
def test_what_costs_no_more_than_the_baseline_is_not_measured(arm, expected):
    base = read(None, ["method=baseline"])
    method = small_method(find_method(arm.split("+")[0]), small_task("classification"))
    assert is_as_cheap(method, build_arm_recipe(base, arm), build_arm_recipe(base, "baseline")) is expected
