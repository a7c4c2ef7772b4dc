"""Importing what a user names as "package.module:function"."""

import sys

import pytest

from selfdistill.imports import load, working_directory_importable


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with a module of the user's own, which is not on the path."""
    (tmp_path / "own_module.py").write_text("def build():\n    return 3\n\nNUMBER = 1\n")
    (tmp_path / "own_broken.py").write_text("import os, missing_library\n")
    (tmp_path / "own_raising.py").write_text("raise RuntimeError('no\\nluck')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    yield tmp_path
    for name in ("own_module", "own_broken", "own_raising"):
        sys.modules.pop(name, None)


def test_a_function_of_the_working_directory_is_found_and_the_path_left_as_it_was(folder):
    before = list(sys.path)
    assert load("own_module:build")() == 3
    assert sys.path == before
    with working_directory_importable():
        assert sys.path == [str(folder), *before]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("own_module:biuld", "own_module has no function 'biuld'; did you mean 'own_module:build'?"),
        ("own_module:NUMBER", "own_module has no function 'NUMBER'"),
        ("own_modul:build", "no module 'own_modul' is installed or in .*; did you mean 'own_module'?"),
        ("jsn:dumps", "no module 'jsn'"),
        ("json.decodr:JSONDecoder", "no module 'json.decodr' .*; did you mean 'json.decoder'?"),
        ("own_broken:build", "importing own_broken raised ModuleNotFoundError: No module named 'missing_library'"),
        ("own_raising:build", "importing own_raising raised RuntimeError: no luck"),
    ],
)
def test_what_cannot_be_imported_is_said_in_one_sentence(folder, name, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        load(name)
    assert "\n" not in str(error.value)


def test_other_words_that_could_have_been_meant_are_suggested(folder):
    with pytest.raises(ValueError, match="did you mean 'timm'"):
        load("tim:resnet18", others=["timm", "smp"])
