"""Method cards: what they say is what the methods' files say."""

import re
import sys
from typing import Annotated, Literal

import pytest
from annotated_types import Ge, Interval

from helpers.methods import small_method
from helpers.networks import CLASSES
from helpers.pages import ROOT
from selfdistill import Task, list_methods
from selfdistill.commands import cards
from selfdistill.commands.families import FAMILIES
from selfdistill.config import names
from selfdistill.hyperparameters import Count, Positive, Share, Weight
from selfdistill.methods import find_method

every_method = pytest.mark.parametrize("name", list_methods())

OWN = '''
"""A Method of One's Own.

Doe, Roe. Some Conference 2030. https://example.org/paper_of_ours, with
Poe. 1850. https://example.org/other
"""

from typing import Literal

from selfdistill.hyperparameters import Count, Weight, hparam
from selfdistill.methods.label_smoothing import LabelSmoothing


class Own(LabelSmoothing):
    """Nobody teaches | anybody,
    said in two lines.

    Departs from the paper: it has 2 * 3 * 4 stars.
    """

    views = 2
    positives = 1
    soft_targets = False
    share = "all"

    label: str = hparam("some text", "of another class below")
    epsilon: Weight = hparam(0.3, "said anew", per_pixel=0.7)
    level: Count | None = hparam(None, "this one | or none", per_pixel=3)
    mode: Literal["a", "b"] = hparam(
        "a", "a description further down"
    )
    silent: bool = False


class Other:
    epsilon: float = 0.4  # of no method
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_card.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_card:Own"
    sys.modules.pop("own_card", None)


def settings(card):
    """The rows of a card's table of hyper-parameters."""
    rows = [line.split(" | ") for line in card.splitlines() if line.startswith("| `")]
    return {row[0].strip("|` "): [cell.strip("| ") for cell in row[1:]] for row in rows}


@every_method
def test_a_card_names_the_paper_the_teaching_the_cost_and_every_setting(name):
    kind, card = find_method(name), cards.card(name)
    paper = cards.find_paper(kind)
    assert card.startswith(f"## {name}\n\n**{paper.title}.**") and paper.link in card
    assert (kind.__doc__ or "").split("\n\n")[0].split()[-1] in card
    assert f"- Cost beside plain training: {kind.cost}" in card
    assert list(settings(card)) == list(kind.hyperparameters())
    assert ("Departs from the paper:" in kind.__doc__) == ("**Departs from the paper:** " in card)


@every_method
def test_a_paper_has_a_venue_and_a_link_or_is_none(name):
    paper = cards.find_paper(find_method(name))
    assert paper.title and (paper.reference == "") == (name == "baseline")
    if paper.reference:
        assert re.search(r"(19|20)\d\d", paper.venue) and paper.link.startswith("https://")


@every_method
def test_a_card_asks_for_square_images_where_others_are_refused(name):
    kind = find_method(name)
    try:
        small_method(kind, Task("classification", CLASSES, (3, 16, 24), num_examples=32))
        square = False
    except ValueError as error:
        square = "square" in str(error)
    assert ("square images" in cards.list_needs(kind)) == square


def test_a_card_of_ones_own_method(own):
    card = cards.card(own)
    assert "**A Method of One's Own.**" in card and "Nobody teaches | anybody, said in two lines." in card
    assert r"**Departs from the paper:** it has 2 \* 3 \* 4 stars." in card
    assert "- Tasks: classification, multilabel, segmentation" in card and "Recipes" not in card
    needs = "2 more augmented views of each image; 1 other image of each image's class; hard labels (`mix: none`)"
    assert f"- Needs: {needs}" in card
    paper = cards.find_paper(find_method(own))
    assert (paper.venue, paper.link) == ("Some Conference 2030", "https://example.org/paper_of_ours")


def test_settings_are_told_with_their_descriptions_those_of_a_subclass_first(own):
    assert settings(cards.card(own)) == {
        "epsilon": ["`0.3`; per pixel: `0.7`", "number from 0", "said anew"],
        "label": ["`some text`", "text", "of another class below"],
        "level": ["`null`; per pixel: `3`", "whole number from 1 or `null`", r"this one \| or none"],
        "mode": ["`a`", "`a` or `b`", "a description further down"],
        "silent": ["`false`", "`true` or `false`", ""],
    }


def test_an_inherited_setting_keeps_its_description():
    assert settings(cards.card("frskd_sla"))["alpha"][2] == settings(cards.card("frskd"))["alpha"][2] != ""


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (Weight, "number from 0"),
        (Positive, "number above 0"),
        (Share, "number from 0 to 1"),
        (Count, "whole number from 1"),
        (int, "whole number"),
        (Annotated[float, Interval(gt=0, lt=1)], "number above 0 and below 1"),
        (Annotated[float, Interval(ge=0.5, lt=1)], "number from 0.5 below 1"),
        (Annotated[int, Ge(2)] | None, "whole number from 2 or `null`"),
        (Literal["a", 2], "`a` or `2`"),
        (str | bool, "text or `true` or `false`"),
    ],
)
def test_allowed_values_are_told_in_words(hint, words):
    assert cards.describe_values(hint) == words


def test_needs_tell_whose_run_the_teacher_must_be():
    assert cards.list_needs(find_method("kd")) == [
        "a teacher (`method.teacher`, a run folder) that is a trained network"
    ]
    assert "that `hsakd_teacher` trained" in cards.card("hsakd")
    assert cards.list_needs(find_method("baseline")) == []


def test_recipes_are_listed_by_name_and_left_out_where_there_are_none(monkeypatch):
    assert {"cifar100/resnet18_label_smoothing"} <= set(cards.find_recipes_of("label_smoothing"))
    assert {"quick/digits_frskd_sla", "cifar100/resnet18_frskd_sla"} <= set(cards.find_recipes_of("frskd_sla"))
    assert "`quick/digits_at`" in cards.card("at")
    monkeypatch.setattr(names, "FOLDERS", ())
    assert cards.find_recipes_of("frskd") == [] and "Recipes" not in cards.card("frskd")


def test_step_times_are_told_where_they_were_measured(monkeypatch):
    ratios = {"cifar:resnet18": {"ratios": {"frskd": 1.456}}, "cifar:resnet8": {"ratios": {"frskd": 2, "kd": 1.2}}}
    measured = {"machine": "a fast one", "batch": 128, "students": ratios}
    monkeypatch.setattr(cards, "read_step_times", lambda: measured)
    told = "1.46x plain training's for `cifar:resnet18`, 2.00x plain training's for `cifar:resnet8`"
    assert cards.describe_step_time("frskd") == f"{told} (a fast one, batches of 128)"
    assert cards.describe_step_time("sad") == "not measured"


def test_the_page_of_all_methods_is_up_to_date():
    written = (ROOT / "docs/methods.md").read_text(encoding="utf-8")
    assert written == cards.page(), "run: python -m selfdistill.commands.cards docs/methods.md"


def test_the_page_on_choosing_groups_methods_as_the_command_does():
    page = (ROOT / "docs/choosing-a-method.md").read_text(encoding="utf-8")
    rows = dict(line.strip("| ").split(" | ", 1) for line in page.splitlines() if line.startswith("| "))
    for family in FAMILIES:
        named = rows[family.teaches.replace("method.teacher=RUN", "`method.teacher=RUN`")]
        assert {name for name in family.names if f"`{name}`" not in named} == set(), family.teaches
    assert sorted(name for family in FAMILIES for name in family.names) == list_methods()


def test_the_table_links_every_card():
    page = cards.page()
    rows = [line for line in page.splitlines() if line.startswith("| [")]
    assert [re.match(r"\| \[(\w+)\]\(#\1\) \|", row)[1] for row in rows] == list_methods()
    assert all(len(re.split(r"(?<!\\)\|", row)) == 8 for row in rows)
    assert re.findall(r"^## (\w+)$", page, re.MULTILINE) == list_methods()


def test_the_command_line_prints_a_card_and_refuses_unknown_names(run):
    code, out, _ = run("methods", "label_smoothing")
    assert code == 0 and out == cards.card("label_smoothing") + "\n"
    code, _, err = run("methods", "label_smothing")
    assert code == 1 and err == "error: no method is called 'label_smothing'; did you mean 'label_smoothing'?\n"
