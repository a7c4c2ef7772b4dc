"""The comment that a recipe begins with is read by its labels."""

from selfdistill.config.header import describe, read_header, read_own_header


def write(folder, name, text):
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


BASE = """# What all share.
# Data: data/set with train/
#   and test/.
# Settings: the paper's.
# Expected: nothing.
# Command: selfdistill train set/NAME

epochs: 3  # of many
# Cost: no line of the head
"""
CHILD = """# Reproduces: a row (Doe et al., 2020). With
#   a remark: or two.
# Settings: ours.

base: base.yaml
"""


def test_paragraphs_are_joined_and_end_with_the_first_line_that_is_no_comment(tmp_path):
    assert read_own_header(write(tmp_path, "base", BASE)) == {
        "": "What all share.",
        "Data": "data/set with train/ and test/.",
        "Settings": "the paper's.",
        "Expected": "nothing.",
        "Command": "selfdistill train set/NAME",
    }


def test_what_a_base_says_of_its_result_does_not_hold_for_others(tmp_path):
    write(tmp_path, "base", BASE)
    assert read_header(write(tmp_path, "child", CHILD)) == {
        "Reproduces": "a row (Doe et al., 2020). With a remark: or two.",
        "Settings": "ours.",
        "Data": "data/set with train/ and test/.",
        "Command": "selfdistill train set/child",
    }


def test_a_recipe_is_described_by_its_first_sentence(tmp_path):
    assert describe(write(tmp_path, "base", BASE)) == "What all share"
    assert describe(write(tmp_path, "child", CHILD)) == "a row (Doe et al., 2020)"
    assert describe(write(tmp_path, "bare", "epochs: 3\n")) == ""
    assert read_own_header(write(tmp_path, "empty", "")) == {}
