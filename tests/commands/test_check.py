"""check: what it prints and writes of a user's images."""

import json

import pytest

from helpers.images import write_classes, write_image
from selfdistill.config.read import read


@pytest.fixture
def photographs(tmp_path):
    """Ten images of two classes, one of them cut short."""
    for name in ("<b>ant", "bee"):
        for number in range(5):
            write_image(tmp_path / "data" / name / f"{number}.png", seed=number + 10 * len(name), size=(40, 30))
    broken = tmp_path / "data" / "bee" / "4.png"
    broken.write_bytes(broken.read_bytes()[:300])
    return tmp_path / "data"


def test_a_problem_is_named_and_ends_with_code_1(run, photographs, tmp_path):
    code, out, err = run("check", f"data={photographs}", "student=cifar:resnet8", "--out", tmp_path / "page")
    assert code == 1 and "Traceback" not in err
    assert "problem: Unusable images. 1 of 10 images cannot be used." in out and "4.png cannot be read" in out
    assert f"suggested: selfdistill train data={photographs} data.on_error=skip batch_size=8 epochs=200" in out
    assert "of one step" not in out and "judged by one step on a few images" in out
    page = (tmp_path / "page" / "check.html").read_text()
    assert "<b>ant" not in page and "&lt;b&gt;ant" in page and "1 problem to mend" in page
    assert page.count("data:image/") == 9 and "http://" not in page.replace("http://www.w3.org", "")


def test_a_clean_set_gets_a_recipe_that_can_be_read(run, photographs, tmp_path):
    write_image(photographs / "bee" / "4.png", seed=99, size=(40, 30))
    file = tmp_path / "recipe.yaml"
    words = [f"data={photographs}", "student=cifar:resnet8", "epochs=3", "--recipe", file]
    code, out, _ = run("check", *words)
    assert code == 0, out
    recipe = read(file)
    assert (recipe.data.source, recipe.student.name, recipe.epochs) == (str(photographs), "cifar:resnet8", 3)
    code, _, err = run("check", *words)
    assert code == 1 and "exists already; choose another --recipe" in err


def test_everything_is_there_as_json(run, photographs):
    code, out, _ = run("check", f"data={photographs}", "student=cifar:resnet8", "--json", "--most", "6")
    told = json.loads(out)
    assert told["splits"]["train"]["images"] == 10 and told["splits"]["train"]["read"] == 6
    assert told["splits"]["train"]["classes"] == {"<b>ant": 5, "bee": 5}
    assert told["suggestion"]["seconds"] > 0 and code == any(f["level"] == "problem" for f in told["findings"])


def test_unequal_classes_are_told_of_with_a_setting_for_them(run, tmp_path):
    write_classes(tmp_path / "data", {"ant": 22, "bee": 2})
    code, out, _ = run("check", f"data={tmp_path / 'data'}", "student=cifar:resnet8")
    assert code == 0 and "'ant' has 22 training images and 'bee' 2, 11 times fewer" in out
    assert "task.class_weights=effective" in out.partition("suggested: ")[2]


def test_what_holds_no_training_images_is_one_sentence(run, tmp_path):
    code, _, err = run("check", f"data={tmp_path}")
    assert code == 1 and err.startswith("error: ") and err.count("\n") == 1
