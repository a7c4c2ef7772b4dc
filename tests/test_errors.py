"""Errors in one sentence: suggestions, and other libraries' errors on one line."""

import pytest

from selfdistill.errors import did_you_mean, escape_controls, one_line

MANY = [f"network{i}" for i in range(31)]


@pytest.mark.parametrize(
    ("name", "known", "ending"),
    [
        ("resnet81", ["vgg11", "resnet18", "resnet50"], "; did you mean 'resnet18'?"),
        ("RESNET18", ["ResNet18"], "; did you mean 'ResNet18'?"),
        ("resnet21", ["resnet32", "resnet20"], "; did you mean 'resnet20'?"),  # of two as similar, the same beginning
        ("zzz", ["a", "b"], "; the choice is: a, b"),
        ("None", ["one", "kd"], "; the choice is: one, kd"),  # short names are often alike without being meant
        ("nope", ["one"], "; the choice is: one"),
        ("dropout", ["root"], "; the choice is: root"),
        ("onee", ["one", "kd"], "; did you mean 'one'?"),
        ("KD", ["one", "kd"], "; did you mean 'kd'?"),
        ("d3", ["d0", "b0"], "; did you mean 'd0'?"),
        ("sdg", ["sgd", "one"], "; did you mean 'sgd'?"),
        ("zzz", MANY, ""),
        ("zzz", [], ""),
    ],
)
def test_the_nearest_name_is_suggested_and_a_short_choice_listed(name, known, ending):
    assert did_you_mean(name, known) == ending


def test_a_prefix_stands_before_every_suggested_name():
    assert did_you_mean("resnet81", ["resnet18"], "cifar:") == "; did you mean 'cifar:resnet18'?"
    assert did_you_mean("zzz", ["a", "b"], "x:") == "; the choice is: x:a, x:b"


def test_what_to_say_otherwise_replaces_the_choice():
    assert did_you_mean("zzz", ["a", "b"], otherwise="name a letter") == "; name a letter"
    assert did_you_mean("zzz", ["a", "b"], otherwise="") == ""
    assert did_you_mean("digit", ["digits"], otherwise="name a file") == "; did you mean 'digits'?"


def test_a_higher_cutoff_suggests_less():
    assert did_you_mean("colour", ["crop"], cutoff=0.4) == "; did you mean 'crop'?"
    assert did_you_mean("colour", ["crop"], otherwise="", cutoff=0.9) == ""


def test_an_error_becomes_one_line_of_bounded_length():
    assert one_line(ValueError("two\n  lines")) == "ValueError: two lines"
    assert one_line(KeyError()) == "KeyError"
    sentence = one_line(RuntimeError("x" * 1000))
    assert sentence.endswith("xxx...") and len(sentence) < 300


def test_names_of_people_and_emoji_stay_as_they_are():
    for name in ("Möwe", "日本 語", "می\u200cخواهم", "👩\u200d🔬", "a b'\"<&>"):
        assert escape_controls(name) == name
    assert escape_controls("a\u2028b\u2066c\x9b\x00") == "a\\u2028b\\u2066c\\x9b\\x00"
    assert escape_controls("a\tb\n", keep="\t") == "a\tb\\n"
