"""Recipes that come with the package are found by name."""

import shutil
from pathlib import Path

import pytest

from helpers.recipes import ROOT
from selfdistill.config import names
from selfdistill.config.names import find_recipe, find_shipped, hides_shipped, list_recipes
from selfdistill.config.read import read

DIGITS = ROOT / "recipes/quick/digits.yaml"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A working directory that holds no recipe."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "name", ["quick/digits", "quick/digits.yaml", "recipes/quick/digits.yaml", DIGITS, str(DIGITS)]
)
def test_a_recipe_is_found_by_name_and_by_path_from_any_folder(elsewhere, name):
    assert find_recipe(name) == DIGITS
    assert read(name).data.limit == 300


def test_a_local_file_wins_over_a_recipe_of_the_same_name(elsewhere):
    local = elsewhere / "quick/digits.yaml"
    local.parent.mkdir()
    local.write_text("epochs: 3\n")
    assert read("quick/digits.yaml").epochs == 3 and read("quick/digits").epochs == 30
    assert hides_shipped("quick/digits.yaml") and not hides_shipped("quick/digits")
    shutil.copy(DIGITS, local)
    assert not hides_shipped("quick/digits.yaml"), "it is the same recipe"
    assert not hides_shipped("quick/other.yaml")


def test_a_local_folder_hides_no_recipe(elsewhere):
    (elsewhere / "quick/digits").mkdir(parents=True)
    assert find_recipe("quick/digits") == DIGITS


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("quick/digit", "; did you mean 'quick/digits'?"),
        ("cifar100/resnet18_frskdd", "; did you mean 'cifar100/resnet18_frskd'?"),
        ("recipes/quick/scene.yaml", "; did you mean 'quick/scenes'?"),
        ("frskd_sla", "; `selfdistill recipes frskd_sla` lists those that contain it"),
        ("xyzzy", "; `selfdistill recipes` lists those that come with the package"),
        ("../recipes/quick/digits", None),
        ("/quick/digits", None),
    ],
)
def test_a_wrong_name_is_refused_in_one_sentence_with_the_way_to_the_right_one(elsewhere, name, hint):
    with pytest.raises(ValueError) as error:
        find_recipe(name)
    assert str(error.value).startswith(f"there is no recipe {name}; ") and "\n" not in str(error.value)
    assert hint is None or str(error.value) == f"there is no recipe {name}{hint}"


def test_recipes_of_an_installed_package_come_before_those_of_a_source_tree(tmp_path, monkeypatch):
    (tmp_path / "own").mkdir()
    (tmp_path / "own/only.yaml").write_text("epochs: 3\n")
    (tmp_path / "own/base.yaml").write_text("epochs: 4\n")
    monkeypatch.setattr(names, "FOLDERS", (tmp_path, *names.FOLDERS))
    assert list_recipes() == {"own/only": tmp_path / "own/only.yaml"}
    assert list_recipes(bases=True).keys() == {"own/only", "own/base"}
    assert read("own/base").epochs == 4 and find_shipped("quick/digits") is None


def test_a_package_without_recipes_still_reads_files(tmp_path, monkeypatch):
    monkeypatch.setattr(names, "FOLDERS", (Path("nowhere"),))
    (tmp_path / "own.yaml").write_text("epochs: 3\n")
    assert list_recipes() == {} and read(tmp_path / "own.yaml").epochs == 3
